"""Copies within and across sources: which row is kept, which one repeats it, how alike they are and why.

Exact copies by a stable 128-bit hash of the normalised text, near copies by an exact set join; star clusters
around the kept row, so that a chain of small edits never pulls unlike texts together. Nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from persona_dagster.corpus.array_store import ArrayStore
from persona_dagster.corpus.dedup_index import SHORTEST, DedupIndex, normalised, version
from persona_dagster.corpus.quality import blocked
from persona_dagster.corpus.tables import run_sql
from persona_dagster.digest import sha256, text_digest

__all__ = ["Deduplicated", "mark_duplicates", "normalised", "stars"]


def dedup_version() -> str:
    """Hash of everything that decides which rows are copies: the `code_version` of the corpus as a whole."""
    here = Path(__file__).parent
    names = ("dedup.py", "quality.py", "sql/survivors.sql", "sql/copies.sql")
    return text_digest(version(), *(sha256((here / name).read_bytes()) for name in names))


@dataclass
class Deduplicated:
    frame: pl.DataFrame  # the rows in their order, `dup_of` set
    matches: pl.DataFrame  # kept, removed (doc_ids), jaccard, cause: a row for every removed one


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
    best = survivors.filter(pl.col("preference").is_not_null()).select(pl.col("node").cast(pl.UInt32), "preference")
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
    paired = np.zeros(len(seen.letters), bool)
    paired[seen.pairs["a"].to_numpy()] = paired[seen.pairs["b"].to_numpy()] = True
    shared = paired | (np.bincount(node, minlength=len(seen.letters)) > 1)
    comment = frame["kind"].is_in(["comment", "reply"]).to_numpy()
    letters = seen.letters[node]  # short comments are nobody's copy
    rows = np.flatnonzero(shared[node] & ((letters >= SHORTEST) | ((letters > 0) & ~comment)))
    compared = frame.select(pl.col("source", "board", "post_id", "created_at", "flags").gather(rows)).select(
        pl.concat_str("source", "board", "post_id", separator=":").alias("doc_id"),
        "created_at",
        blocked().alias("blocked"),
        row=rows, node=node[rows], paired=paired[node[rows]], one=hashes.one[rows], two=hashes.two[rows],
    )  # fmt: skip
    survivors = run_sql("survivors", compared=compared)
    survivors = survivors.with_columns(one=hashes.one[survivors["row"]], two=hashes.two[survivors["row"]])
    copies = run_sql("copies", survivors=survivors, stars=_near(survivors, seen.pairs), compared=compared)
    names = [compared["doc_id"].gather(np.searchsorted(rows, copies[row].to_numpy())) for row in ("kept", "row")]
    dup_of = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame)).scatter(copies["row"], names[0])
    matches = copies.select(kept=names[0], removed=names[1], jaccard="jaccard", cause="cause")
    return Deduplicated(frame.with_columns(dup_of.alias("dup_of")), matches)
