"""A conversation as the chat keeps it: turns with their route, what the filter took, and how to carry it out and in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from persona_dagster.chat.adapters import Adapter
from persona_dagster.chat.engine import Answer, Ask, Engine, Finish, Sampling
from persona_dagster.chat.interface_texts import Language, say
from persona_dagster.models.chat_format import Message
from persona_dagster.models.output_filter import Removed
from persona_dagster.models.persona_classifier import Route, Router

LONGEST_QUESTION = 8_000  # characters: more does not fit any window that we train
LONGEST_IMPORT = 4_000_000  # bytes

Vote = Literal["up", "down"]
AUTO, MODEL = "auto", "model"
KEPT = ("persona", "adapter", "finish", "vote")  # what an export says of a turn beside its messages


class ConversationError(ValueError):
    """A question or a file that cannot be taken; the message, a text of interface_texts.py, says why."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(say(key, "en", **values))
        self.key, self.values = key, values

    def say(self, language: Language) -> str:
        return say(self.key, language, **self.values)


@dataclass(slots=True)
class Turn:
    """One question and the answer to it, growing while it is written."""

    question: str
    persona: str | None  # None: untagged
    route: Route | None = None  # None: chosen by the user, or left to the model
    adapter: str = ""
    answer: str = ""
    removed: tuple[Removed, ...] = ()
    finish: Finish | None = None  # None: still being written, or imported
    tokens: int = 0
    first_token_s: float = 0.0
    seconds: float = 0.0
    vote: Vote | None = None


@dataclass(slots=True)
class Conversation:
    turns: list[Turn] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """What was said so far, for the model. Answers that stayed empty are left out with their questions."""
        said: list[Message] = []
        for turn in self.turns:
            if turn.answer.strip():
                said += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return said

    def begin(self, question: str, choice: str, adapter: Adapter, router: Router) -> Turn:
        """A new turn for `question`; `choice` is a persona's name, `auto`, or `model` (untagged).

        Raises:
            ConversationError: an empty or too long question, an unknown persona.
        """
        question = question.strip()
        if not question:
            raise ConversationError("asked_nothing")
        if len(question) > LONGEST_QUESTION:
            raise ConversationError("asked_too_long", length=len(question), most=LONGEST_QUESTION)
        if choice not in (AUTO, MODEL) and choice not in router.personas.personas:
            raise ConversationError("no_persona", name=choice)
        route = router.route(question) if choice == AUTO else None
        return Turn(question, route.persona if route else None if choice == MODEL else choice, route, adapter.name)

    def ask(self, turn: Turn, adapter: Adapter, engine: Engine, sampling: Sampling, filtered: bool) -> Answer:
        """Asks `turn`'s question after all earlier turns, and adds the turn."""
        messages = [*self.messages(), {"role": "user", "content": turn.question}]
        persona = engine.personas.personas[turn.persona] if turn.persona else None
        answer = engine.answer(Ask(messages, adapter, persona, sampling, filtered))
        self.turns.append(turn)
        return answer

    def to_jsonl(self, consent: bool) -> str:
        """One dialogue in the import schema of dialogues (`source`, `messages`), with what is known of each turn."""
        row = {
            "source": "persona-chat",
            "messages": self.messages(),
            "consent": consent,
            "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "turns": [{name: getattr(turn, name) for name in KEPT} for turn in self.turns],
        }
        return json.dumps(row, ensure_ascii=False) + "\n"


def follow(turn: Turn, answer: Answer) -> Iterator[Turn]:
    """`turn` after each piece of `answer`, and once more with its figures."""
    for _ in answer:
        turn.answer, turn.removed = answer.text, answer.removed
        yield turn
    turn.answer, turn.removed, turn.finish = answer.text, answer.removed, answer.finish
    turn.tokens, turn.first_token_s, turn.seconds = answer.tokens, answer.first_token_s or 0.0, answer.seconds
    yield turn


def read_jsonl(path: Path) -> Conversation:
    """The dialogues of an export, in one conversation.

    Raises:
        ConversationError: naming the line that is no dialogue.
    """
    if path.stat().st_size > LONGEST_IMPORT:
        raise ConversationError("file_too_large", where=path.name, most=LONGEST_IMPORT // 1_000_000)
    turns: list[Turn] = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConversationError("file_no_text", where=path.name) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            turns += _turns(line, f"{path.name}, line {number}")
    return Conversation(turns)


def _turns(line: str, where: str) -> list[Turn]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConversationError("file_no_json", where=where, why=error.msg) from error
    messages: Sequence[Any] = row.get("messages", ()) if isinstance(row, dict) else ()
    said = [
        m for m in messages if isinstance(m, dict) and isinstance(m.get("content"), str) and m.get("role") != "system"
    ]
    roles = [message.get("role") for message in said]
    if not said or roles != ["user", "assistant"] * (len(said) // 2):
        raise ConversationError("file_no_dialogue", where=where)
    known = row.get("turns")
    fits = isinstance(known, list) and len(known) == len(said) // 2 and all(isinstance(fact, dict) for fact in known)
    facts: list[dict[str, Any]] = known if fits else [{}] * (len(said) // 2)
    return [
        Turn(
            question["content"][:LONGEST_QUESTION],
            None,
            adapter=str(fact.get("adapter") or ""),
            answer=answer["content"],
            vote=fact["vote"] if fact.get("vote") in get_args(Vote) else None,
        )
        for question, answer, fact in zip(said[::2], said[1::2], facts, strict=True)
    ]
