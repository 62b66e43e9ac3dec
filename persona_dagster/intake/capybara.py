"""Capybara's multi-turn dialogues as captures: from a local JSONL, the packaged sample, or the Hub.

A capture a dialogue. Its board is the split it comes from, so that the Hub's test rows are never trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from persona_dagster.digest import sha256, text_digest
from persona_dagster.intake.dumps import DumpError, open_dump
from persona_dagster.records import Capture, Outcome

DATASET = "trl-lib/Capybara"
SPLITS = ("train", "test")
PACKAGED = Path(__file__).parent.parent / "sample" / "content" / "capybara.jsonl"
ROLES = {"system", "user", "assistant"}


def read_dialogues(path: Path | None = None, *, hub: bool = False) -> Iterator[Capture]:
    """The dialogues of a JSONL (also .gz, .zst) with `messages`, of the Hub's dataset, or of the packaged sample.

    A row's own `split` key says where it belongs; without one it is train. Raises `DumpError` naming file and line.
    """
    if path is None and hub:
        yield from _captures(_hub_rows(), f"https://huggingface.co/datasets/{DATASET}", datetime.now(UTC))
        return
    path = path or PACKAGED
    if not path.is_file():
        raise DumpError(f"{path}: no such file; give a JSONL in the columns of {DATASET}")
    yield from _captures(_file_rows(path), "", datetime.fromtimestamp(path.stat().st_mtime, UTC))


def _file_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open_dump(path) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = orjson.loads(line)
                yield row.get("split", "train"), _checked(row)
            except (ValueError, AttributeError) as error:
                raise DumpError(f"{path}:{number}: {error}; one dialogue a line is expected") from error


def _hub_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    for split in SPLITS:
        for row in load_dataset(DATASET, split=split):
            yield split, _checked(dict(row))


def _checked(row: Any) -> dict[str, Any]:
    """The row in Capybara's columns; `conversation` of the original dataset is turned into `messages`."""
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} where an object belongs")
    messages = row.get("messages")
    if messages is None and isinstance(turns := row.get("conversation"), list):
        messages = [
            {"role": role, "content": turn[name]}
            for turn in turns
            for role, name in (("user", "input"), ("assistant", "output"))
        ]
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages")
    for message in messages:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise ValueError(f"a message of role {message.get('role')!r} whose content is no text")
    clean = [{"role": message["role"], "content": message["content"]} for message in messages]
    return {"source": row.get("source") or "", "messages": clean, "num_turns": len(clean)}


def _captures(rows: Iterable[tuple[str, dict[str, Any]]], url: str, fetched_at: datetime) -> Iterator[Capture]:
    for split, row in rows:
        if split not in SPLITS:
            raise DumpError(f"a dialogue of split {split!r}; known are {' and '.join(SPLITS)}")
        body = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
        text = [f"{message['role']}\n{message['content']}" for message in row["messages"]]
        yield Capture(
            source="capybara",
            board=split,
            kind="dialogue",
            key=text_digest(*text)[:16],
            url=url,
            fetched_at=fetched_at,
            status=200,
            outcome=Outcome.OK,
            headers={"split": split},
            body=body,
            sha256=sha256(body),
        )
