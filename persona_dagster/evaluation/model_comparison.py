"""A column of answers as a mean per model, and as the difference of two models over the same prompts.

Answers to one question hang together and are resampled together.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bootstrap import (
    NOTHING,
    Interval,
    jackknife_interval,
    mean_interval,
    paired_interval,
)
from persona_dagster.evaluation.collapse import distinct, distinct_without

MODELS = ("base", "fewshot", "adapter")
SPOKEN = ("test", "probe", "routing", "contradiction")  # suites whose answers ought to be fluent prose


def of_model(rows: pl.DataFrame, model: str) -> pl.DataFrame:
    return rows.filter(pl.col("model") == model)


def mean_over(rows: pl.DataFrame, column: str) -> Interval:
    """The mean of `column`, nulls left out."""
    kept = rows.drop_nulls(column)
    return mean_interval(kept[column].cast(pl.Float64).to_list(), groups=_groups(kept))


def gain_over(rows: pl.DataFrame, column: str, ours: str = "adapter", theirs: str = "base") -> Interval:
    """`ours` minus `theirs` over the prompts that both answered."""
    keys = ["suite", "prompt_id"]
    left, right = (of_model(rows, name).select(*keys, "question", column) for name in (ours, theirs))
    both = left.join(right.drop("question"), on=keys, suffix="_other")
    both = both.drop_nulls([column, f"{column}_other"]).sort(keys)
    values, others = (both[name].cast(pl.Float64).to_list() for name in (column, f"{column}_other"))
    return paired_interval(values, others, groups=_groups(both))


def compare(rows: pl.DataFrame, column: str, name: str, intervals: dict[str, Interval], theirs: str = "base") -> None:
    """`name`_<model> of every model, and `name`_gain, adapter minus `theirs`."""
    for model in MODELS:
        intervals[f"{name}_{model}"] = mean_over(of_model(rows, model), column)
    intervals[f"{name}_gain"] = gain_over(rows, column, theirs=theirs)


def distinct_gain(rows: pl.DataFrame, n: int) -> Interval:
    """distinct-n of the adapter minus that of the base, whose answers are to the same questions."""
    sides = [of_model(rows, name) for name in ("adapter", "base")]
    whole = [distinct(side["answer"].to_list(), n) for side in sides]
    if whole[0] is None or whole[1] is None:
        return NOTHING
    left, right = (distinct_without(side["answer"].to_list(), _groups(side), n) for side in sides)
    return jackknife_interval(whole[0] - whole[1], [left[group] - right[group] for group in left if group in right])


def _groups(rows: pl.DataFrame) -> list[str]:
    return [text_digest(question) for question in rows["question"].to_list()]
