"""Capybara's chats as dialogues: the Hub's split kept, a chat that is none refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from persona_dagster.conversation.capybara import MalformedChatError, capybara_dialogues
from persona_dagster.digest import sha256
from persona_dagster.records import DIALOGUE_SCHEMA, Capture, Outcome

NOW = datetime(2026, 11, 22, tzinfo=UTC)
TURNS = [("user", "hi"), ("assistant", "hello"), ("user", "why?"), ("assistant", "because")]


def capture(body: Any, board: str = "train", key: str = "7", **headers: str) -> Capture:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return Capture("capybara", board, "dialogue", key, "", NOW, 200, Outcome.OK, headers, data, sha256(data))


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_the_hubs_split_is_kept_and_a_last_question_dropped() -> None:
    frame = capybara_dialogues(
        [
            capture(chat(*TURNS)),
            capture(chat(*TURNS, ("user", "and?")), "test", "8"),
            capture(chat(*TURNS), "import", "9", split="test"),
        ]
    )
    assert frame.schema == DIALOGUE_SCHEMA
    by_doc = {
        docs[0]: (board, len(turns)) for docs, board, turns in frame.select("doc_ids", "board", "messages").iter_rows()
    }
    assert by_doc == {
        "capybara:train:7": ("train", 4),
        "capybara:test:8": ("test", 4),
        "capybara:test:9": ("test", 4),
    }
    assert set(frame["persona"]) == {"general"} and frame["pair_id"].is_sorted()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{not json", "capybara 7: not"),
        ({"turns": []}, "KeyError"),
        ({"messages": [{"role": "user"}]}, "KeyError"),
        ({"messages": None}, "TypeError"),
        (chat(("user", None), ("assistant", "x")), "AttributeError"),
        (chat(("assistant", "x"), ("user", "y")), "not user and assistant in turn"),
        (chat(("system", "be nice"), ("user", "x"), ("assistant", "y")), "not user and assistant in turn"),
        (chat(("user", "alone")), "not user and assistant in turn"),
    ],
)
def test_a_malformed_row_is_refused_by_name(body: Any, message: str) -> None:
    with pytest.raises(MalformedChatError, match=message):
        capybara_dialogues([capture(body)])
