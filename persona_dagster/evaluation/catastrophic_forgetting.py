"""Forgetting: what the base knew and the adapter no longer does, on probes written for this project.

Two views in 0-1, base against adapter: `choice` (the sentence with the right answer is likelier than those with the
wrong ones; it needs no fluent answer, so it works for small models) and `written` (the answer holds what it must).
Drop = base minus adapter, positive when something was lost.
"""

from __future__ import annotations

import re

import polars as pl

from persona_dagster.evaluation.bootstrap import Interval, paired_interval
from persona_dagster.evaluation.loss import choices
from persona_dagster.evaluation.prompts import Choice


def choice_results(likelihoods: pl.DataFrame) -> tuple[dict[str, bool], dict[str, bool]]:
    """Right or wrong by probe id, for base and for adapter; only probes that both were asked."""
    frame = choices(likelihoods)
    base, adapter = (
        dict(frame.filter(pl.col("model") == m).select("key", "right").rows()) for m in ("base", "adapter")
    )
    both = sorted(base.keys() & adapter.keys())
    return {key: base[key] for key in both}, {key: adapter[key] for key in both}


def drop(base: dict[str, bool], adapter: dict[str, bool]) -> Interval:
    """Base minus adapter, paired by probe."""
    keys = sorted(base)
    return paired_interval([base[key] for key in keys], [adapter[key] for key in keys])


def written_right(probe: Choice, answer: str) -> bool:
    """Whether a written answer holds what the probe's `accept` asks for."""
    return re.search(probe.accept, answer, re.IGNORECASE) is not None


def written_results(generations: pl.DataFrame, probes: list[Choice], model: str) -> dict[str, bool]:
    """Right or wrong by probe id, over the written answers of suite `knowledge`."""
    frame = generations.filter((pl.col("suite") == "knowledge") & (pl.col("model") == model))
    answers = dict(frame.select("prompt_id", "answer").rows())
    return {probe.id: written_right(probe, answers[probe.id]) for probe in probes if probe.id in answers}
