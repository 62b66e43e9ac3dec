"""A sentence that PTT's push line cut is one comment again: consecutive pushes of one author, the former full.

The row that begins it gets the whole text; the rows that went on are flagged `joined`, and keep their own words.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.sites.ptt.quotes_and_line_wrapping import SENTENCE_ENDS, columns

# How much fits depends on the board (does it print addresses?) and on the length of the id: 33 to 55 columns. So a
# push is full when no other of its author in the thread is more than one column (half a character) longer.
NARROWEST, WIDEST = 33, 60
STARTS_ANEW = (">", "http", "※", "1.", "2.", "3.")


def _full(width: int, longest: int) -> bool:
    return NARROWEST <= width <= WIDEST and width >= longest - 1


def join_pushes(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """PTT rows with cut comments whole, and the rows (by place) that went into the one before them."""
    author = ("board", "parent_id", "author_key")
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in author)
    comment = (pl.col("kind") == "comment") & ~pl.col("flags").list.contains("joined")
    candidates = frame.select(
        (same & comment & comment.shift() & (pl.col("text").shift().str.len_bytes() >= NARROWEST)).arg_true()
    ).to_series()
    if not len(candidates):
        return frame, candidates
    involved = pl.concat([candidates, candidates - 1]).unique().sort()
    rows = frame[involved].select("text", *author).with_columns(involved.alias("row"))
    rows = rows.with_columns(pl.col("text").map_elements(columns, return_dtype=pl.Int64).alias("width"))
    longest = dict(rows.select("row", pl.col("width").filter(pl.col("width") <= WIDEST).max().over(author)).iter_rows())
    width = dict(rows.select("row", "width").iter_rows())
    said = dict(rows.select("row", "text").iter_rows())
    head: dict[int, int] = {}
    for row in candidates:
        before, text = row - 1, said[row]
        last = said[head.get(before, before)][-1:]
        cut = _full(width[before], longest[before] or 0) and last not in SENTENCE_ENDS
        if cut and text and not text.startswith(STARTS_ANEW):
            head[row] = head.get(before, before)
            said[head[row]] += text
    heads = sorted(set(head.values()))
    whole = frame["text"].clone().scatter(heads, pl.Series([said[row] for row in heads], dtype=pl.String))
    return frame.with_columns(whole), pl.Series(sorted(head), dtype=pl.UInt32)
