"""Copies within and across sources: which row is kept, which one repeats it, how alike they are and why.

Exact copies by a stable 128-bit hash of the normalised text, near copies by an exact set join; star clusters
around the kept row, so that a chain of small edits never pulls strangers together. Nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from persona_dagster.corpus.array_store import ArrayStore
from persona_dagster.corpus.dedup_index import SHORTEST, DedupIndex, normalised
from persona_dagster.corpus.quality import BLOCKING
from persona_dagster.corpus.warehouse import run_sql

__all__ = ["Deduplicated", "mark_duplicates", "normalised", "stars"]

MATCHES = ("kept", "removed", "jaccard", "cause")  # one row for every removed row, by doc_id


@dataclass
class Deduplicated:
    frame: pl.DataFrame  # the rows in their order, `dup_of` set
    matches: pl.DataFrame  # MATCHES


def stars(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For pairs of nodes numbered by preference: which nodes go, and the number of the pair that each goes by.

    A node repeats the best kept node among its neighbours; a node without one is kept. Every removed node is
    therefore itself >= threshold like the kept one: no chains.
    """
    low, high = np.minimum(left, right), np.maximum(left, right)
    removed: dict[int, int] = {}
    for pair in np.lexsort((low, high)).tolist():
        a, b = int(low[pair]), int(high[pair])
        if a not in removed and b not in removed:
            removed[b] = pair
    return np.array(list(removed), np.int64), np.array(list(removed.values()), np.int64)


def _near(survivors: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Nodes that repeat another node (`node`, `kept`, `jaccard`), the most preferred of a star being kept."""
    best = survivors.filter(pl.col("place") == 1).select("node", "preference")
    best = best.cast({"node": pl.UInt32})
    pairs = pairs.join(best, left_on="a", right_on="node").join(best, left_on="b", right_on="node", suffix="_b")
    gone, by = stars(pairs["preference"].to_numpy(), pairs["preference_b"].to_numpy())
    chosen = pairs[by].with_columns(a_goes=pl.col("preference") == pl.Series(gone))
    return chosen.select(
        pl.when("a_goes").then("a").otherwise("b").alias("node"),
        pl.when("a_goes").then("b").otherwise("a").alias("kept"),
        "jaccard",
    )


def mark_duplicates(frame: pl.DataFrame, index: Path | None = None) -> Deduplicated:
    """`dup_of` of every row that repeats another (`records.POST_SCHEMA`), and the matches with their causes.

    With a folder `index` only texts that were not there the last time are compared; the outcome is the same.
    """
    texts = frame["text"].fill_null("")
    store = ArrayStore(index) if index else None
    seen = DedupIndex.load(store) if store else DedupIndex(once=True)
    hashes, node = seen.take_in(texts)
    if store:
        seen.save(store)
    shared = np.bincount(node, minlength=len(seen.letters)) > 1
    shared[seen.pairs["a"]] = shared[seen.pairs["b"]] = True
    rows = np.flatnonzero(shared[node])
    compared = frame.select(
        "source", "board", "post_id", "created_at",
        (pl.col("flags").list.set_intersection(pl.lit(list(BLOCKING))).list.len() > 0).alias("blocked"),
        pl.col("kind").is_in(["comment", "reply"]).alias("comment"),
    )[rows].with_columns(
        row=rows, node=node[rows], letters=seen.letters[node[rows]], one=hashes.one[rows], two=hashes.two[rows]
    )  # fmt: skip
    survivors = run_sql("survivors", {"shortest": SHORTEST}, compared=compared)
    copies = run_sql("copies", survivors=survivors, stars=_near(survivors, seen.pairs))
    dup_of = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame)).scatter(copies["row"], copies["kept"])
    return Deduplicated(frame.with_columns(dup_of.alias("dup_of")), copies.select(MATCHES))
