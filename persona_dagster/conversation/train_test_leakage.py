"""Which dialogues say nearly the same, and how near train comes to test: exact over all pairs, never sampled.

Similarity is Jaccard over the character 3-grams of prompt and answer together, normalised as dedup does.
Texts below `min_chars` letters are compared for equality only: on so few grams Jaccard says nothing.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from persona_dagster.corpus import setjoin
from persona_dagster.corpus.dedup import normalised

PAIR_SCHEMA = pl.Schema({"left": pl.Int64, "right": pl.Int64, "jaccard": pl.Float64})

# The search for the largest Jaccard goes down these steps and stops at the first that finds a pair; the cost of
# the join grows as the threshold falls.
STEPS = (0.8, 0.6, 0.45, 0.3)


def spoken(dialogues: pl.DataFrame) -> pl.Series:
    """Prompt and answer as one text a dialogue."""
    text = pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n")
    return dialogues.select(text=text)["text"]


def near_duplicates(texts: pl.Series, threshold: float, min_chars: int) -> pl.DataFrame:
    """Groups of rows that say nearly the same, as (group, row): the rows of one text, and for each pair of texts
    with Jaccard of at least `threshold` the rows of both. A row may be in several groups."""
    rows = pl.DataFrame({"text": texts}).select(norm=normalised(pl.col("text")))
    rows = rows.with_columns(row=pl.int_range(pl.len()), text=pl.col("norm").rank("dense").cast(pl.Int64))
    same = rows.filter(pl.len().over("text") > 1).select("row", group=pl.format("same {}", "text"))
    heads = rows.unique("text", keep="first", maintain_order=True).filter(pl.col("norm").str.len_chars() >= min_chars)
    pairs = _join(heads["norm"], threshold).with_columns(group=pl.format("near {}", pl.int_range(pl.len())))
    near = [
        pairs.select("group", text=heads["text"].gather(pairs[side])).join(rows, on="text").select("row", "group")
        for side in ("left", "right")
    ]
    return pl.concat([same, *near])


def largest_jaccard(train: pl.Series, test: pl.Series, min_chars: int) -> float:
    """The largest Jaccard between a text of `train` and one of `test`; 0.0 where none reaches 0.3.

    Only the distinct texts matter; equality counts as 1 however short the texts are.
    """
    sides = [
        pl.DataFrame({"text": side}).select(norm=normalised(pl.col("text"))).unique(maintain_order=True)["norm"]
        for side in (train, test)
    ]
    if sides[0].is_in(sides[1].implode()).any():
        return 1.0
    long = [side.filter(side.str.len_chars() >= min_chars) for side in sides]
    both, border = pl.concat(long), len(long[0])
    fresh = np.arange(len(both)) >= border
    for step in STEPS:
        found = _join(both, step, fresh)
        across = found.filter((pl.col("left") < border) & (pl.col("right") >= border))
        if across.height:
            return float(across["jaccard"].max())  # type: ignore[arg-type]
    return 0.0


def _join(texts: pl.Series, threshold: float, fresh: np.ndarray | None = None) -> pl.DataFrame:
    left, right, jaccard = setjoin.similar_pairs(texts, threshold, fresh)
    return pl.DataFrame({"left": left, "right": right, "jaccard": jaccard}, schema=PAIR_SCHEMA)
