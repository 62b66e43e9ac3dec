"""Labels: which voice a real answer has, as somebody read it. A line each, append-only; ids of posts, never their text.

`persona review` and `persona labels import` write files into the labels folder; the asset `voice_labels` is what they
say together, the latest word on each answer. Texts are joined from the corpus when voices are learned, so that a post
that is forgotten is learned from no longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from persona_dagster.conversation.builders import asked
from persona_dagster.conversation.graph import named_rows
from persona_dagster.conversation.voice_classifier import Labelled
from persona_dagster.digest import file_digest, json_digest

LABELS_VERSION = "1"
HUMAN, MODEL = "human", "model:"  # who labelled; what a model proposes is never learned from

LABEL_SCHEMA = pl.Schema(
    {
        "doc_id": pl.String,  # the answer
        "question_doc": pl.String,  # what it truly replies to; null: as the reply graph says
        "persona": pl.String,  # whose voice; null: nobody's
        "fit": pl.Int8,  # 2 clearly usable, 1 borderline, 0 none
        "unsafe": pl.Boolean,
        "by": pl.String,
        "at": pl.String,  # ISO, UTC
        "file": pl.String,
    }
)


class LabelError(ValueError):
    """A file that holds no labels; the message names file, line and cure."""


def labels_version(folder: Path) -> str:
    return json_digest([(path.name, file_digest(path)) for path in sorted(folder.glob("*.jsonl"))])


def read_labels(folder: Path) -> pl.DataFrame:
    """LABEL_SCHEMA, one row an answer: the latest, of two of one moment the one further down; people before models."""
    rows = [
        {"question_doc": None, "persona": None, "unsafe": False, **row, "file": path.name}
        for path in sorted(folder.glob("*.jsonl"))
        for row in _lines(path, ("doc_id", "by", "at"))
    ]
    found = pl.DataFrame(rows, LABEL_SCHEMA).with_row_index()
    human = ~pl.col("by").str.starts_with(MODEL)
    return found.sort(human, "at", "index", descending=True).unique("doc_id", keep="first").sort("doc_id").drop("index")


def append(path: Path, labels: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.writelines(orjson.dumps(label, option=orjson.OPT_APPEND_NEWLINE) for label in labels)
        file.flush()
        os.fsync(file.fileno())


def label(doc_id: str, persona: str | None, by: str, **more: Any) -> dict[str, Any]:
    at = datetime.now(UTC).isoformat(timespec="microseconds")
    return {"doc_id": doc_id, "persona": persona, "fit": 2 if persona else 0, "by": by, "at": at} | more


def import_labels(source: Path, by: str, rows: pl.DataFrame | None, of: str | None) -> tuple[list[dict[str, Any]], int]:
    """Labels of an export (`doc_id`), or of rows of an imported file: `line` from 0, `voice`, `fit`, `unsafe`,
    `parent_line`; and how many of them name a row that is not here.

    `rows`: doc_id by `origin` (file:row, from 1). `of`: the imported file that lines count in.
    """
    found, missing = [], 0
    docs = dict(rows.select("origin", "doc_id").iter_rows()) if rows is not None else {}
    for row in _lines(source, ()):
        if "doc_id" in row:
            known = {key: row[key] for key in ("question_doc", "fit", "unsafe", "at") if key in row}
            found.append(label(row["doc_id"], row.get("persona"), row.get("by", by), **known))
            continue
        if of is None or not isinstance(row.get("line"), int):
            raise LabelError(f"{source}: rows by `line` need --of, the imported file that they count in, else `doc_id`")
        doc = docs.get(f"{of}:{row['line'] + 1}")
        if doc is None:
            missing += 1
            continue
        voice = row.get("voice")
        parent = row.get("parent_line")
        more = {"question_doc": docs.get(f"{of}:{parent + 1}") if isinstance(parent, int) else None}
        more |= {key: row[key] for key in ("fit", "unsafe") if key in row}
        found.append(label(doc, None if voice in (None, "none") else voice, by, **more))
    return found, missing


def origins(posts: pl.DataFrame, imported: pl.DataFrame) -> pl.DataFrame:
    """doc_id by `origin` of the posts that were imported; of a row that gave several posts, its last."""
    return (
        named_rows(posts)
        .join(imported, on="snapshot", how="inner", maintain_order="left")
        .select("origin", "doc_id")
        .unique("origin", keep="last")
    )


def labelled(labels: pl.DataFrame, posts: pl.DataFrame, edges: pl.DataFrame) -> Labelled | None:
    """The labels of people with the texts of the corpus; None where none of their posts is here."""
    rows = named_rows(posts).unique("doc_id", keep="first")
    first = edges.filter(pl.col("rank") == 1).select("doc_id", graph_doc="parent_doc").unique("doc_id")
    answers = rows.select("doc_id", answer=pl.col("text").str.strip_chars())
    questions = rows.select(question_doc="doc_id", question=asked("title", "text"))
    found = (
        labels.filter(~pl.col("by").str.starts_with(MODEL))
        .join(answers, on="doc_id")
        .join(first, on="doc_id", how="left")
        .with_columns(pl.coalesce("question_doc", "graph_doc"))
        .join(questions, on="question_doc", how="left")
        .sort("doc_id")
    )
    if not found.height:
        return None
    texts = found["question"].fill_null("").to_list(), found["answer"].to_list()
    return Labelled(*texts, found["persona"].to_list(), unsafe=found["unsafe"].fill_null(value=False).to_list())


def _lines(path: Path, needs: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise LabelError(f"{path}:{number}: {error}; one JSON object a line is expected") from error
        if not isinstance(row, dict) or not set(needs) <= set(row):
            raise LabelError(f"{path}:{number}: {', '.join(needs)} in one object a line are expected")
        yield row
