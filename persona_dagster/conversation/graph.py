"""The conversation graph: who answers whom, with the evidence for each edge and how certain it is.

DuckDB resolves it (sql/reply_graph.sql) from floors and ranges that a comment names (`B12`, `#3`, `樓上`, `回12樓`),
what the site says, PTT push runs, the poster's own answers and `Re:` chains. A comment without any of these answers the
post of its thread. On the 989 labelled pairs of `../shared/labels` whose parent is clear, 92.7 % of edges are right,
and 99.7 % of those whose floor is named.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import polars as pl

from persona_dagster.corpus.tables import run_sql

GRAPH_VERSION = "1"

REPLY_DAYS = 60  # a reply further from its original than this answers another post of the same title
LONGEST_RANGE = 20  # floors; `B1~B300` is nobody's list of people spoken to

_SQL = Path(__file__).parent / "sql"
_NUMBER = r"(?:[Bb#]\s?\d{1,4}|\d{1,4}\s?樓)"
_NUMBERS = rf"({_NUMBER}(?:[\s,、，和跟與~～-]*{_NUMBER})*)"
_HEAD = rf"(?m)^[^\p{{L}}\p{{N}}\n#]*(?:回[覆應]?給?\s*)?{_NUMBERS}(?:[^0-9A-Za-z%度]|$)"
_TAIL = rf"(?m)(?:^|[^A-Za-z0-9是到在去]){_NUMBERS}[^\p{{L}}\p{{N}}\n]*$"
_VITAMINS = "維他命|維生素|葉酸|保健食品|[Bb]群"  # where B12 is swallowed

_GRAPH = {
    "doc_id": pl.String,  # who answers
    "parent_doc": pl.String,  # whom; null where the floor that it names is gone
    "evidence": pl.String,  # floor | floor_gone | above | host | site | thread | quote | title | circle
    "certainty": pl.Float64,  # share of such edges that are right
    "rank": pl.Int32,  # 1: the edge; further ones: other floors that it names too
    "source": pl.String,
    "board": pl.String,
    "thread_doc": pl.String,
    "run_doc": pl.String,  # first of the pushes in a row that make one utterance; else the row itself
    "by_host": pl.Boolean,  # the poster of the thread answers
    "author_key": pl.String,
    "parent_author": pl.String,
    "origin": pl.String,  # file and row of what was imported
    "parent_origin": pl.String,
}
GRAPH_SCHEMA = pl.Schema(_GRAPH)


Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)


def named_rows(posts: Rows) -> Rows:
    """`posts` (POST_SCHEMA) with what the graph joins by: doc_id, thread_doc, parent_doc, topic, is_reply."""
    doc = pl.concat_str("source", pl.col("board").fill_null(""), "post_id", separator=":")
    topic = pl.col("title").str.replace(r"(?i)^\s*(?:(?:re|fw)\s*:\s*)+", "").str.strip_chars().str.to_lowercase()
    reply = pl.col("title").str.contains(r"(?i)^\s*re\s*:").fill_null(value=False)
    rows = posts.with_columns(doc_id=doc, topic=topic, is_reply=reply).with_columns(thread_doc=_thread())
    parents = rows.group_by("source", parent_id="post_id").agg(parent_doc=pl.col("doc_id").min())
    return rows.join(parents, on=["source", "parent_id"], how="left", maintain_order="left")


def _thread() -> pl.Expr:
    """The thread's name: for PTT articles, all of one board and title belong together, replies included."""
    article = (pl.col("source") == "ptt") & (pl.col("kind") != "comment") & pl.col("topic").is_not_null()
    root = pl.coalesce("thread_id", pl.col("parent_id"), pl.col("post_id"))
    return (
        pl.when(article)
        .then(pl.col("doc_id").sort_by("is_reply", "created_at", "doc_id").first().over("source", "board", "topic"))
        .otherwise(pl.concat_str("source", pl.col("board").fill_null(""), root, separator=":"))
    )


def reply_graph(
    posts: pl.DataFrame | pl.LazyFrame, origins: pl.DataFrame | None = None, scratch: Path | None = None
) -> pl.DataFrame:
    """The edges (GRAPH_SCHEMA) among `posts` (POST_SCHEMA), duplicates and unusable rows included.

    `origins`: of imported rows the `origin` (file:row) by `snapshot`. `scratch`: a folder where the rows wait for the
    query, and not in memory; they hold what people wrote, so it has to be one that forgetting deletes.
    """
    # Articles name no floors, and are most of the bytes: the texts of comments alone are copied about.
    names_floors = pl.col("kind").is_in(["comment", "reply"]) & pl.col("floor").is_not_null()
    slim = posts.lazy().select(
        "source", "board", "kind", "post_id", "parent_id", "thread_id", "title", "author_key", "created_at", "floor",
        "snapshot", pl.col("quoted").str.head(1), pl.when(names_floors).then("text_raw").alias("text_raw"),
    )  # fmt: skip
    known = origins if origins is not None else pl.DataFrame(schema={"snapshot": pl.String, "origin": pl.String})
    slim = slim.join(known.lazy().unique("snapshot"), on="snapshot", how="left", maintain_order="left").drop("snapshot")
    rows = named_rows(slim).unique("doc_id", keep="first", maintain_order=True)
    unused = ("post_id", "parent_id", "thread_id", "title")
    parameters = {
        "head": _HEAD,
        "tail": _TAIL,
        "vitamins": _VITAMINS,
        "range": LONGEST_RANGE,
        "reply_days": REPLY_DAYS,
    }
    rows, query = rows.drop(unused), str(_SQL / "reply_graph")
    if scratch is None:
        return _edges(run_sql(query, parameters, rows=rows.collect()))
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="graph-", dir=scratch) as folder:
        (kept := Path(folder) / "rows").mkdir()
        rows.sink_parquet(kept / "rows.parquet", compression="lz4")
        return _edges(run_sql(query, parameters, spill=Path(folder) / "spill", rows=kept))


def _edges(found: pl.DataFrame) -> pl.DataFrame:
    return _without_circles(found.select(pl.col(name).cast(dtype) for name, dtype in GRAPH_SCHEMA.items()))


def _without_circles(edges: pl.DataFrame) -> pl.DataFrame:
    """Rows that name each other in a circle (a dump's error) answer nobody: their edges lose their parent."""
    first = edges.filter((pl.col("rank") == 1) & pl.col("parent_doc").is_not_null())
    place = {doc: at for at, doc in enumerate(first["doc_id"])}
    end = len(place)
    above = np.array([*(place.get(doc, end) for doc in first["parent_doc"]), end], dtype=np.int64)
    for _ in range(end.bit_length()):  # doubling: after this many steps each walk is at its end, or goes in a circle
        above = above[above]
    circle = set(first["doc_id"].gather(np.unique(above[above < end]).tolist()))
    if not circle:
        return edges
    broken = pl.col("doc_id").is_in(sorted(circle))
    return edges.with_columns(
        parent_doc=pl.when(~broken).then("parent_doc"),
        evidence=pl.when(broken).then(pl.lit("circle")).otherwise("evidence"),
    )


def imported_rows(ledgers: Path) -> pl.DataFrame | None:
    """`origin` (file:row) by `snapshot`, from the ledgers of imported files; None where nothing was imported."""
    paths = sorted(ledgers.glob("*.parquet"))
    if not paths:
        return None
    stored = pl.scan_parquet(paths).filter(pl.col("fate") == "stored")
    return stored.select("snapshot", origin=pl.format("{}:{}", "file", "row")).unique("snapshot").collect()


def graph_yield(edges: pl.DataFrame) -> pl.DataFrame:
    """Edges by source and evidence: how many, and how certain on average."""
    return (
        edges.group_by("source", "evidence")
        .agg(edges=pl.len(), certainty=pl.col("certainty").mean().round(2))
        .sort("source", "edges", descending=[False, True])
    )
