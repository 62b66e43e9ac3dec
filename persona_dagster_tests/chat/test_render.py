"""What is said never becomes markup."""

from __future__ import annotations

from persona_dagster.chat.conversation import Conversation, Turn
from persona_dagster.chat.render import history
from persona_dagster.config.personas import Personas
from persona_dagster.models.output_filter import Removed

HOSTILE = "<img src=x onerror=alert(1)></b><!--<?<script>"


def test_no_tag_gets_through_anywhere(personas: Personas) -> None:
    turn = Turn(HOSTILE, None, adapter=HOSTILE, answer=HOSTILE, removed=(Removed("tag", HOSTILE),), finish="stop")
    for message in history(Conversation([turn]), personas, "zh"):
        shown = message["content"] + message.get("metadata", {}).get("title", "")
        assert "<" not in shown


def test_ordinary_signs_stay(personas: Personas) -> None:
    turn = Turn("a < b, c <3 d", None, answer="x <= y", finish="stop")
    shown = [message["content"] for message in history(Conversation([turn]), personas, "en")]
    assert shown[0] == "a < b, c <3 d"
    assert "x <= y" in shown
