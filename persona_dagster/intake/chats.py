"""Chat exports: LINE's text file and DiscordChatExporter's JSON and CSV → rows with speakers, who answers whom.

A message answers the last one of another speaker, within a few hours; a pause begins a conversation of its own.
Who exports a chat speaks for others too: their consent is asked once for a chat, and recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from persona_dagster.digest import text_digest
from persona_dagster.intake.open_and_decode import IntakeError, Unit, lines_of
from persona_dagster.intake.schema import Row, row_of
from persona_dagster.intake.times import TAIPEI, moment
from persona_dagster.sites.parser_results import USER

PAUSE = timedelta(hours=6)
# The first line of an export, in the languages that LINE writes it in.
LINE_HEAD = re.compile(
    r"^(?:\[LINE\] ?)?(?:與|Chat history (?:with|in) ?)?(?P<name>.+?)(?:的聊天記錄|的聊天紀錄|のトーク履歴)?$"
)
LINE_HEADS = ("[LINE]", "Chat history")
LINE_SAVED = re.compile(r"^(?:儲存日期|Saved on|保存日時) ?[:：]")
LINE_DAY = re.compile(
    r"^(\d{4})[./](\d{1,2})[./](\d{1,2})(?:[ (（日一二三四五六星期週月火水木金土SMTWF].*)?$"
    r"|^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})"
)
LINE_MESSAGE = re.compile(
    r"^(?P<half>上午|下午|午前|午後)?(?P<hour>\d{1,2}):(?P<minute>\d\d)(?P<end> ?[AaPp][Mm])?"
    r"(?:\t(?P<who>[^\t]*)\t(?P<text>.*)|(?:\t| )(?P<event>[^\t]*))$"
)
# What the app writes in a message's place.
LINE_THINGS = re.compile(
    r"^\[?(?:貼圖|照片|影片|圖片|語音訊息|檔案|聯絡資訊|位置資訊|記事本|相簿|Sticker|Photo|Video|Voice message|File"
    r"|スタンプ|写真)\]?$|^☎ "
)
DISCORD_COLUMNS = {"AuthorID", "Author", "Date", "Content"}
DISCORD_SPEECH = frozenset(["Default", "Reply", "19", "0"])


@dataclass
class Message:
    """One message of a chat."""

    row: int
    who: str
    text: str
    at: datetime | None
    message_id: str | None = None
    answers: str | None = None  # message_id, where the app says so


def is_line(head: str) -> bool:
    lines = [line for line in head.lstrip("\ufeff").split("\n")[:12] if line.strip()]
    marked = bool(lines) and (lines[0].startswith(LINE_HEADS) or "的聊天記錄" in lines[0] or "のトーク履歴" in lines[0])
    dated = any(LINE_DAY.match(line.strip()) for line in lines[:8])
    return dated and (marked or any(LINE_SAVED.match(line) for line in lines[:3]) or any(
        (found := LINE_MESSAGE.match(line.rstrip("\r"))) and found["who"] for line in lines
    ))  # fmt: skip


def line_chat(unit: Unit, encoding: str | None = None) -> tuple[str, Iterator[tuple[int, Message | IntakeError]]]:
    """(the chat's name, its messages): words only, no stickers, calls or pictures, no notes of who came and went."""
    first = next((line for _, line in lines_of(unit, encoding) if isinstance(line, str) and line.strip()), "")
    found = LINE_HEAD.match(first.strip()) if first.startswith(LINE_HEADS) or "聊天" in first else None
    return (found["name"].strip() if found else unit.stem), _line_messages(unit, encoding)


def _line_messages(unit: Unit, encoding: str | None) -> Iterator[tuple[int, Message | IntakeError]]:
    day: tuple[int, int, int] | None = None
    last: Message | None = None
    for number, line in lines_of(unit, encoding):
        if isinstance(line, IntakeError):
            yield number, line
            continue
        if found := LINE_MESSAGE.match(line):
            if last:
                yield last.row, _unquoted(last)
            last = None
            if found["who"] is not None and day:
                last = Message(number, found["who"].strip(), found["text"], _at(day, found))
        elif dated := LINE_DAY.match(line.strip()):
            year, month, date = (int(dated[n] or dated[name]) for n, name in ((1, "year"), (2, "month"), (3, "day")))
            day = (year, month, date)
        elif last and line:
            last.text += "\n" + line
    if last:
        yield last.row, _unquoted(last)


def _unquoted(message: Message) -> Message:
    """LINE quotes messages of several lines."""
    text = message.text
    if text.startswith('"') and text.endswith('"') and "\n" in text:
        message.text = text[1:-1].replace('""', '"')
    return message


def _at(day: tuple[int, int, int], found: re.Match[str]) -> datetime | None:
    hour = int(found["hour"])
    half = (found["half"] or found["end"] or "").strip().lower()
    if half in ("下午", "午後", "pm"):
        hour = hour % 12 + 12
    elif half:
        hour %= 12
    try:
        return datetime(*day, hour, int(found["minute"]), tzinfo=TAIPEI)
    except ValueError:
        return None


def is_discord(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("messages"), list) and isinstance(value.get("channel"), dict)
    )


def discord_chat(value: dict[str, Any]) -> tuple[str, Iterator[tuple[int, Message]]]:
    """DiscordChatExporter's JSON: (server/channel, messages by people)."""
    guild = (value.get("guild") or {}).get("name") or "Discord"
    return f"{guild}/{value['channel'].get('name') or value['channel'].get('id')}", _discord_messages(value["messages"])


def _discord_messages(messages: list[Any]) -> Iterator[tuple[int, Message]]:
    for number, one in enumerate(messages, 1):
        if not isinstance(one, dict) or not isinstance(one.get("author"), dict):
            continue
        speech = str(one.get("type", "Default")) in DISCORD_SPEECH and not one["author"].get("isBot")
        text = one.get("content") if speech and isinstance(one.get("content"), str) else ""
        reference = one.get("reference")
        yield (
            number,
            Message(
                number,
                str(one["author"].get("id") or one["author"].get("name")),
                text or "",
                moment(str(one.get("timestamp") or ""), zone=ZoneInfo("UTC")),
                str(one["id"]) if one.get("id") else None,
                str(reference["messageId"]) if isinstance(reference, dict) and reference.get("messageId") else None,
            ),
        )


def discord_rows(records: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Message | IntakeError]]:
    """The records of DiscordChatExporter's CSV."""
    for number, one in records:
        if isinstance(one, IntakeError):
            yield number, one
        else:
            at = moment(str(one.get("Date") or ""))
            yield (
                number,
                Message(number, str(one.get("AuthorID") or one.get("Author") or ""), str(one.get("Content") or ""), at),
            )


def conversations(
    app: str, name: str, messages: Iterable[tuple[int, Message | IntakeError]]
) -> Iterator[tuple[int, Row | IntakeError | None]]:
    """Messages as rows of source `chat`; None for what holds no words (stickers, calls, bots).

    `parent_id` names the last message of another speaker, or the one that the app says is answered. The board is a
    digest of the chat's name, which is a person's as often as not; speakers' names within the text are masked.
    """
    everything = list(messages)
    board = f"{app}-{text_digest(name)[:8]}"
    names = sorted(
        {one.who for _, one in everything if isinstance(one, Message) and len(one.who) > 1}, key=len, reverse=True
    )
    mask = re.compile("|".join(f"@?{re.escape(name)}" for name in names)) if names else None
    before: list[tuple[str, str, datetime | None]] = []  # (id, speaker, time) of the last message of each speaker
    seen: dict[str, int] = {}
    for number, one in everything:
        if isinstance(one, IntakeError):
            yield number, one
            continue
        if not one.text.strip() or LINE_THINGS.match(one.text.strip()):
            yield number, None
            continue
        own = one.message_id or text_digest(board, one.who, one.at.isoformat() if one.at else "", one.text)[:16]
        seen[own] = seen.get(own, 0) + 1
        if not one.message_id and seen[own] > 1:
            own = f"{own}-{seen[own]}"  # the same word twice in a minute is two messages
        others = [said for said in before if said[1] != one.who and _near(said[2], one.at)]
        parent = one.answers or (others[-1][0] if others else None)
        before = [said for said in before if said[1] != one.who] + [(own, one.who, one.at)]
        fields = {
            "source": "chat",
            "kind": "reply" if parent else "post",
            "text": mask.sub(USER, one.text) if mask else one.text,
            "id": own,
            "parent_id": parent,
            "board": board,
            "author": one.who,
            "created_at": one.at.isoformat() if one.at else None,
        }
        yield number, row_of(fields)


def _near(before: datetime | None, now: datetime | None) -> bool:
    return before is None or now is None or now - before <= PAUSE
