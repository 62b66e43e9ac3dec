"""Capybara's multi-turn dialogues as captures: from a local JSONL, the packaged sample, or the Hub.

A capture a dialogue. Its board is the split it comes from, so that the Hub's test rows are never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from persona_dagster.digest import sha256, text_digest
from persona_dagster.intake.open_and_decode import IntakeError, Unit
from persona_dagster.intake.schema import RowError
from persona_dagster.intake.tables import json_lines
from persona_dagster.records import Capture, Outcome
from persona_dagster.sites.browser_responses import OF_THE_FILE

DATASET = "trl-lib/Capybara"
SPLITS = ("train", "test")
PACKAGED = Path(__file__).parent.parent / "sample" / "content" / "capybara.jsonl"
ROLES = {"system", "user", "assistant"}


def read_dialogues(path: Path | None = None, *, hub: bool = False) -> Iterator[Capture]:
    """The dialogues of a JSONL (also packed) with `messages`, of the Hub's dataset, or of the packaged sample.

    A row's own `split` key says where it belongs; without one it is train. Raises `IntakeError` naming file and line.
    """
    if path is None and hub:
        for split, row in _hub_rows():
            yield dialogue_of({**row, "split": split}, f"https://huggingface.co/datasets/{DATASET}", datetime.now(UTC))
        return
    path = path or PACKAGED
    if not path.is_file():
        raise IntakeError(str(path), "no such file", f"Give a JSONL in the columns of {DATASET}")
    modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    for number, record in json_lines(Unit(path.name, path, modified)):
        if isinstance(record, IntakeError):
            raise record
        try:
            yield dialogue_of(record, fetched_at=modified)
        except RowError as error:
            raise IntakeError(path.name, error.why, error.cure, number) from error


def _hub_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    from datasets import load_dataset

    for split in SPLITS:
        for row in load_dataset(DATASET, split=split):
            yield split, dict(row)


def dialogue_of(record: Any, url: str = "", fetched_at: datetime = OF_THE_FILE) -> Capture:
    """A dialogue in Capybara's columns (or the original's, `conversation`) as a capture. Raises `RowError`."""
    row = _checked(record)
    split = record.get("split") or "train"
    if split not in SPLITS:
        raise RowError("unknown_split", f"a dialogue of split {str(split)[:20]!r}", f"Known are {' and '.join(SPLITS)}")
    body = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    text = [f"{message['role']}\n{message['content']}" for message in row["messages"]]
    return Capture(
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


def _checked(row: Any) -> dict[str, Any]:
    """The row in Capybara's columns."""
    cure = f"One dialogue a row in the columns of {DATASET} is expected"
    if not isinstance(row, dict):
        raise RowError("no_dialogue", f"a {type(row).__name__} where an object belongs", cure)
    messages = row.get("messages")
    try:
        if messages is None and isinstance(turns := row.get("conversation"), list):
            messages = [
                {"role": role, "content": turn[name]}
                for turn in turns
                for role, name in (("user", "input"), ("assistant", "output"))
            ]
        if not isinstance(messages, list) or not messages:
            raise RowError("no_dialogue", "no messages", cure)
        for message in messages:
            if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
                raise RowError(
                    "no_dialogue", f"a message of role {str(message.get('role'))[:20]!r} whose content is no text", cure
                )
    except (AttributeError, KeyError, TypeError) as error:
        raise RowError("no_dialogue", f"a message without {error}", cure) from error
    clean = [{"role": message["role"], "content": message["content"]} for message in messages]
    return {"source": str(row.get("source") or ""), "messages": clean, "num_turns": len(clean)}
