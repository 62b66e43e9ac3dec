"""Capybara's multi-turn chats as dialogues of the persona "general".

A row's Hub split is kept as its board: Capybara's test is the Hub's own, whatever the keyed split says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import polars as pl

from persona_dagster.digest import text_digest
from persona_dagster.records import DIALOGUE_SCHEMA, Capture, doc_id

PERSONA = "general"
SPLITS = ("train", "test")


class MalformedChatError(ValueError):
    """A row that is not user and assistant in turn; the message names it."""


def capybara_dialogues(captures: Iterable[Capture]) -> pl.DataFrame:
    """A dialogue a capture: body `{source, messages: [{role, content}], num_turns}`; its split is headers["split"],
    else its board where that is train or test."""
    rows = [_dialogue(capture) for capture in captures]
    return pl.DataFrame(rows, schema=DIALOGUE_SCHEMA, orient="row").sort("pair_id")


def _dialogue(capture: Capture) -> dict[str, Any]:
    try:
        chat = orjson.loads(capture.body)
        messages = [{"role": m["role"], "content": m["content"].strip()} for m in chat["messages"]]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise MalformedChatError(f"capybara {capture.key}: not {{messages: [{{role, content}}]}}: {error!r}") from error
    split = capture.headers.get("split") or (capture.board if capture.board in SPLITS else "train")
    if messages and messages[-1]["role"] == "user":
        messages = messages[:-1]
    roles = [message["role"] for message in messages]
    if not messages or roles != ["user", "assistant"] * (len(roles) // 2):
        raise MalformedChatError(f"capybara {split}/{capture.key}: roles are {roles}, not user and assistant in turn")
    doc = doc_id("capybara", split, capture.key)
    return {
        "pair_id": text_digest(doc),
        "builder": "multi_turn",
        "persona": PERSONA,
        "source": "capybara",
        "board": split,
        "thread_id": doc,
        "doc_ids": [doc],
        "urls": [capture.url],
        "answer_author": None,
        "messages_raw": messages,
        "messages": messages,
        "score": 1.0,
    }
