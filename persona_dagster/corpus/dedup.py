"""Copies within and across sources: which row is kept, which one repeats it, how alike they are and why.

Exact copies by a stable 128-bit hash of the normalised text, near copies by an exact set join; star clusters
around the kept row, so that a chain of small edits never pulls strangers together. Nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import xxhash

from persona_dagster.corpus import setjoin
from persona_dagster.corpus.quality import BLOCKING

THRESHOLD = 0.7
SHORTEST = 5  # letters; below, peers call 推, 噓 and 笑死 copies of each other

MATCH_SCHEMA = pl.Schema({"kept": pl.String, "removed": pl.String, "jaccard": pl.Float64, "cause": pl.String})


@dataclass
class Deduplicated:
    frame: pl.DataFrame  # the rows in their order, `dup_of` set
    matches: pl.DataFrame  # MATCH_SCHEMA: one row for every removed row


def normalised(column: pl.Expr) -> pl.Expr:
    """What is compared: letters and digits, compatibility forms and case folded, within the BMP."""
    return (
        column.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{N}]+", "")
        .str.replace_all(r"[\U00010000-\U0010FFFF]", "\ue000")
    )


def text_key(text: str) -> bytes:
    """The stable 128-bit hash of a normalised text."""
    return xxhash.xxh3_128_digest(text.encode())


def _ranked(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows to compare, best first: trainable before flagged, older before newer, then by doc_id."""
    comment = pl.col("kind").is_in(["comment", "reply"])
    return (
        frame.with_row_index("row")
        .select(
            "row",
            pl.concat_str("source", pl.lit(":"), "board", pl.lit(":"), "post_id").alias("doc_id"),
            normalised(pl.col("text")).alias("norm"),
            (pl.col("flags").list.set_intersection(pl.lit(list(BLOCKING))).list.len() > 0).alias("blocked"),
            "created_at",
            "text",
            comment.alias("comment"),
        )
        .filter((pl.col("norm").str.len_chars() >= SHORTEST) | (~pl.col("comment") & (pl.col("norm") != "")))
        .sort("blocked", "created_at", "doc_id", nulls_last=True)
    )


def stars(count: int, left: np.ndarray, right: np.ndarray, jaccard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For nodes in order of preference: the kept node that each repeats (or -1), and how alike they are.

    A node repeats the best kept node among its neighbours; a node without one is kept. Every removed node is
    therefore itself >= threshold like the kept one: no chains.
    """
    kept_by = np.full(count, -1, np.int64)
    alike = np.zeros(count, np.float64)
    low, high = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((low, high))
    for a, b, j in zip(low[order].tolist(), high[order].tolist(), jaccard[order].tolist(), strict=True):
        if kept_by[b] < 0 and kept_by[a] < 0:
            kept_by[b], alike[b] = a, j
    return kept_by, alike


def mark_duplicates(frame: pl.DataFrame) -> Deduplicated:
    """`dup_of` of every row that repeats another (`records.POST_SCHEMA`), and the matches with their causes."""
    ranked = _ranked(frame)
    nodes = (
        ranked.with_row_index("rank")
        .group_by("norm", maintain_order=True)
        .agg(pl.col("rank"), pl.col("doc_id"), pl.col("row"), pl.col("text"))
    )
    texts = nodes["norm"].to_list()
    left, right, jaccard = near_pairs(texts)
    kept_by, alike = stars(len(texts), left, right, jaccard)
    removed_rows: list[int] = []
    kept_ids: list[str] = []
    matches: list[tuple[str, str, float, str]] = []
    heads = [ids[0] for ids in nodes["doc_id"].to_list()]
    changed = np.flatnonzero((kept_by >= 0) | (nodes["row"].list.len().to_numpy() > 1))
    for number, ids, rows, spelt in zip(
        changed.tolist(), *(nodes[c].gather(changed).to_list() for c in ("doc_id", "row", "text")), strict=True
    ):
        near = kept_by[number] >= 0
        head = heads[kept_by[number]] if near else heads[number]
        for place, (identity, row, text) in enumerate(zip(ids, rows, spelt, strict=True)):
            if place == 0 and not near:
                continue  # the kept row itself
            cause = "near" if near else ("exact" if text == spelt[0] else "same_words")
            removed_rows.append(row)
            kept_ids.append(head)
            matches.append((head, identity, float(alike[number]) if near else 1.0, cause))
    dup_of = pl.Series([None], dtype=pl.String).new_from_index(0, len(frame))
    if removed_rows:
        dup_of = dup_of.scatter(pl.Series(removed_rows, dtype=pl.UInt32), pl.Series(kept_ids, dtype=pl.String))
    return Deduplicated(
        frame.with_columns(dup_of.alias("dup_of")), pl.DataFrame(matches, schema=MATCH_SCHEMA, orient="row")
    )


def near_pairs(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of distinct normalised texts with J >= 0.7, but for those that differ in digits only."""
    sets = setjoin.gram_sets([t if len(t) >= SHORTEST else "" for t in texts], setjoin.bucket_ranks(texts))
    left, right, jaccard = setjoin.similar_pairs(sets, THRESHOLD)
    if len(left):
        shapes = pl.Series(texts).str.replace_all(r"\p{N}+", "0")
        differ = (shapes.gather(left) != shapes.gather(right)).to_numpy()
        left, right, jaccard = left[differ], right[differ], jaccard[differ]
    return left, right, jaccard
