"""Columns of the tables as Dagster shows them: name, type, and the columns upstream that each comes from."""

import dagster as dg
import polars as pl

from persona_dagster.records import FORUMS

BODY, OF_CAPTURE = "body", {"fetched_at": "fetched_at", "snapshot": "sha256"}  # columns of an archive
TABLES = (*(f"{source}_posts" for source in (*FORUMS, "chat")), "notes")
NAMED = ("source", "board", "post_id")  # what a doc_id is made of

# By table and column: upstream `table.column`s. What is not listed comes from its namesakes.
COMES_FROM: dict[str, dict[str, tuple[str, ...]]] = {
    "posts": {"dup_of": tuple(f"{table}.text" for table in TABLES[:-1])},
    "reply_graph": {
        "doc_id": tuple(f"posts.{name}" for name in NAMED),
        "parent_doc": ("posts.parent_id", "posts.text", "posts.floor", "posts.quoted", "posts.title"),
        "evidence": ("posts.parent_id", "posts.text", "posts.floor", "posts.quoted", "posts.title"),
        "thread_doc": ("posts.thread_id",),
        "run_doc": ("posts.author_key", "posts.floor"),
        "by_host": ("posts.author_key",),
        "parent_author": ("posts.author_key",),
    },
    "dialogues": {
        "persona": ("posts.text", "notes.text", "voice_labels.persona"),
        "score": ("posts.text", "notes.text", "voice_labels.persona"),
        "doc_ids": ("reply_graph.doc_id", "reply_graph.parent_doc", *(f"notes.{name}" for name in NAMED)),
        "urls": ("posts.url", "notes.url"),
        "thread_id": ("reply_graph.thread_doc",),
        "answer_author": ("posts.author_key",),
        "messages": ("posts.text", "notes.text"),
        "messages_raw": ("posts.text_raw", "notes.text_raw"),
        "pair_id": ("reply_graph.doc_id", "reply_graph.parent_doc"),
    },
    "capybara_dialogues": dict.fromkeys(("messages", "messages_raw", "pair_id"), ("capybara_raw.body",)),
    "split": {
        "component": tuple(f"{table}.{name}" for table in ("dialogues", "capybara_dialogues") for name in
                           ("thread_id", "messages")),
    },
}  # fmt: skip


def column_schema(frame: pl.DataFrame) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(name, str(kind)) for name, kind in frame.schema.items()])


def column_lineage(table: str, columns: list[str], upstream: dict[str, pl.Schema]) -> dg.TableColumnLineage:
    """Of a `table`; `upstream` holds the tables that it is made of, as they are named in the graph."""
    found = {column: _origins(table, column, upstream) for column in columns}
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(dg.AssetKey(asset), name) for asset, _, name in (one.partition(".") for one in deps)
            ]
            for column, deps in found.items()
            if deps
        }
    )


def _origins(table: str, column: str, upstream: dict[str, pl.Schema]) -> tuple[str, ...]:
    if listed := COMES_FROM.get(table, {}).get(column):
        return listed
    if table in TABLES:
        return (f"{table.removesuffix('_posts')}_raw.{OF_CAPTURE.get(column, BODY)}",)
    return tuple(f"{name}.{column}" for name, schema in upstream.items() if column in schema)
