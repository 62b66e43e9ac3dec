"""Copies within and across sources: which row is kept, which one repeats it, how alike they are and why.

Exact copies by a stable 128-bit hash of the normalised text, near copies by an exact set join; star clusters
around the kept row, so that a chain of small edits never pulls unlike texts together. Nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from persona_dagster.corpus.array_store import ArrayStore
from persona_dagster.corpus.dedup_index import SHORTEST, CorpusRows, DedupIndex, Hashes, normalised, version
from persona_dagster.corpus.grams import I64
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
    dup_of, matches = find_duplicates(frame.lazy(), index)
    return Deduplicated(frame.with_columns(dup_of), matches)


def find_duplicates(corpus: pl.LazyFrame, index: Path | None = None) -> tuple[pl.Series, pl.DataFrame]:
    """The same of a corpus that need not be in memory (`pl.scan_parquet`): the column `dup_of`, and the matches."""
    rows, store = CorpusRows(corpus), ArrayStore(index) if index else None
    seen = DedupIndex.load(store) if store else DedupIndex(once=True)
    hashes, node = seen.take_in(rows)
    if store:
        seen.save(store)
    with TemporaryDirectory(prefix="persona-dedup-") as folder:
        compared, spill = Path(folder) / "compared", Path(folder) / "spill"
        number = _write_compared(rows, seen, hashes, node, compared)
        survivors = run_sql("survivors", spill=spill, compared=compared)
        survivors = survivors.with_columns(one=hashes.one[survivors["row"]], two=hashes.two[survivors["row"]])
        nearest = _near(survivors, seen.pairs)
        copies = run_sql("copies", spill=spill, survivors=survivors, stars=nearest, compared=compared)
        names = pl.read_parquet(compared / "*.parquet", columns=["doc_id"])["doc_id"]
    kept, removed = (names.gather(np.searchsorted(number, copies[row].to_numpy())) for row in ("kept", "row"))
    dup_of = pl.Series("dup_of", [None], dtype=pl.String).new_from_index(0, rows.height).scatter(copies["row"], kept)
    return dup_of, copies.select(kept=kept, removed=removed, jaccard="jaccard", cause="cause")


def _write_compared(rows: CorpusRows, seen: DedupIndex, hashes: Hashes, node: I64, folder: Path) -> I64:
    """Rows whose text stands elsewhere too, or is like another's, as Parquet; returns their numbers, ascending."""
    paired = np.zeros(len(seen.letters), bool)
    paired[seen.pairs["a"].to_numpy()] = paired[seen.pairs["b"].to_numpy()] = True
    shared = paired | (np.bincount(node, minlength=len(seen.letters)) > 1)
    folder.mkdir()
    numbers = []
    for start, part in rows.parts("source", "board", "post_id", "created_at", "flags", "kind"):
        of = node[start : start + len(part)]
        comment, letters = part["kind"].is_in(["comment", "reply"]).to_numpy(), seen.letters[of]
        # Short comments are nobody's copy.
        here = np.flatnonzero(shared[of] & ((letters >= SHORTEST) | ((letters > 0) & ~comment)))
        number, of = start + here, of[here]
        part[here].select(
            pl.concat_str("source", "board", "post_id", separator=":").alias("doc_id"),
            "created_at",
            blocked().alias("blocked"),
            row=number, node=of, paired=paired[of], one=hashes.one[number], two=hashes.two[number],
        ).write_parquet(folder / f"{start:012}.parquet", compression="lz4")  # fmt: skip
        numbers.append(number)
    return np.concatenate(numbers)
