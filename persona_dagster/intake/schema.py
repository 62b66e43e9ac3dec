"""The import schema: the one check of a row, and the name by which a row is known.

A record in whatever spelling becomes a `Row` here or is refused with its reason; `persona import`, `persona clean`
and the graph read through this module, so that they agree on what a row is.
"""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import cache
from typing import Any, Literal, get_args

import orjson

from persona_dagster.digest import text_digest
from persona_dagster.records import Kind, Source

RowSource = Literal["ptt", "dcard", "threads", "chat", "notes"]
SOURCES: tuple[str, ...] = get_args(RowSource)
KINDS: tuple[str, ...] = get_args(Kind)
TEXT_FIELDS = ("id", "parent_id", "board", "title", "author", "created_at", "tag", "url")
FIELDS = ("source", "kind", "text", *TEXT_FIELDS, "score", "floor", "deleted")
CLEANED_BEFORE = "joined"  # a flag of rows that `persona clean` wrote: their words went into the row before
COMMENT_SIGNS = ("parent_id", "tag", "floor")
TAGS = {
    "推": "推",
    "噓": "噓",
    "→": "→",
    "->": "→",
    "push": "推",
    "boo": "噓",
    "arrow": "→",
    "推文": "推",
    "噓文": "噓",
}
# A number that a crawler counted up by itself; sites' own ids are longer, and say the same thing in every dump.
COUNTED = re.compile(r"\d{1,6}")
SPELLINGS = {
    "ptt": ("ptt", "批踢踢", "ptt.cc", "www.ptt.cc"),
    "dcard": ("dcard", "狄卡", "d卡", "dcard.tw", "www.dcard.tw"),
    "threads": ("threads", "脆", "threads.net", "threads.com", "www.threads.net", "www.threads.com"),
    "chat": ("chat", "line", "discord", "聊天"),
    "notes": ("notes", "筆記"),
    "capybara": ("capybara", "水豚"),
}
NUL = "\x00"
FLAT_HEAD = re.compile(
    r'^\s*"?作者(?P<author>.{1,60}?)(?:看板|站內)(?P<board>[0-9A-Za-z][0-9A-Za-z_.\-]+)標題(?P<title>[^\n]*?)'
    r"時間(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})"
)


class RowError(ValueError):
    """A record that is no row: `why`, what would make it one, and a word by which such rows are counted."""

    def __init__(self, code: str, why: str, cure: str) -> None:
        super().__init__(f"{why}. {cure}")
        self.code, self.why, self.cure = code, why, cure


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the import schema. `fields` holds what the row has of `FIELDS`, in that order, nothing null."""

    fields: dict[str, Any]

    @property
    def source(self) -> Source:
        return self.fields["source"]

    @property
    def board(self) -> str | None:
        return self.fields.get("board")

    @property
    def body(self) -> bytes:
        """The row as it is archived: the same bytes for the same row, whatever file it came from."""
        return orjson.dumps(self.fields)

    @property
    def row_id(self) -> str:
        """The file's own id, else one by content; a counted number of a comment is its post's, for posts count too."""
        own = self.fields.get("id")
        if own is None:
            return text_digest(*(f"{name}={value}" for name, value in self.fields.items()))[:20]
        if self.fields["kind"] in ("comment", "reply") and COUNTED.fullmatch(own):
            return f"{self.fields.get('parent_id') or ''}#{own}"
        return own

    @property
    def key(self) -> str:
        """What makes it the same row in every file: kind, board and id (of one source)."""
        return f"{self.fields['kind']}:{self.board or ''}:{self.row_id}"

    @property
    def counted(self) -> bool:
        """Whether its id is a mere number, which another crawl may have given to another post."""
        return COUNTED.fullmatch(self.fields.get("id") or "x") is not None

    def renamed(self, row_id: str) -> Row:
        return replace(self, fields={**self.fields, "id": row_id})


def row_of(record: Any) -> Row:
    """A record with the columns of the import schema as a `Row`. Raises `RowError` that says what is wrong with it."""
    if not isinstance(record, dict):
        raise RowError("no_object", f"a {type(record).__name__} where an object belongs", "Write one object a row")
    source = canonical_source(record.get("source"))
    text = record.get("text")
    if isinstance(text, int | float) and not isinstance(text, bool):
        text = str(text)  # a table's column of numbers: 87 is a comment
    if not isinstance(text, str):
        why = "its text is empty" if text is None else f"its text is a {type(text).__name__}"
        raise RowError("no_text", why, "Write it there, or name the column that holds it with --map text=COLUMN")
    fields: dict[str, Any] = {"source": source, "kind": _kind(record), "text": _clean(text)}
    for name in TEXT_FIELDS:
        if (value := words(record.get(name), name)) is not None:
            fields[name] = value
    if "tag" in fields:
        fields["tag"] = TAGS.get(fields["tag"].strip(), fields["tag"].strip())
    for name in ("score", "floor"):
        if (number := whole(record.get(name))) is not None:
            fields[name] = number
    if truthy(record.get("deleted")):
        fields["deleted"] = True
    if "board" not in fields and (head := FLAT_HEAD.match(text)):
        fields["board"] = head["board"]
    if CLEANED_BEFORE in (record.get("flags") or ()):
        fields[CLEANED_BEFORE] = True
    return Row(fields)


@cache
def standardise_source(text: str) -> str | None:
    """The canonical name of a source, or None."""
    plain = unicodedata.normalize("NFKC", text).strip().casefold()
    return next((source for source, spellings in SPELLINGS.items() if plain in spellings), None)


def canonical_source(value: Any) -> str:
    """`ptt` for `PTT`, `批踢踢` or `www.ptt.cc`. Raises `RowError` for what is no source."""
    found = standardise_source(value) if isinstance(value, str) else None
    if found not in SOURCES:
        raise RowError(
            "unknown_source",
            f"source is {str(value)[:20]!r}",
            f"Known are {', '.join(SOURCES)}; give the one of the whole file with --source",
        )
    return found


def _kind(record: dict[str, Any]) -> str:
    kind = record.get("kind")
    if kind is None or kind == "":
        return "comment" if any(record.get(name) not in (None, "") for name in COMMENT_SIGNS) else "post"
    name = str(kind).strip().lower()
    if name not in KINDS:
        raise RowError("unknown_kind", f"kind is {str(kind)[:20]!r}", f"Known are {', '.join(KINDS)}")
    return name


def words(value: Any, name: str) -> str | None:
    """A field that is text, or a number, time or id that stands for it; nothing for null and empty."""
    if value is None or isinstance(value, str):
        value = _clean(value or "").strip() if name != "title" else _clean(value or "")
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float | date | time):
        raise RowError("bad_field", f"{name} is a {type(value).__name__}", "Give text or a number")
    if isinstance(value, float):
        if math.isnan(value):  # an empty cell
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _clean(text: str) -> str:
    """Text that can be stored: lone surrogates and NULs, which Parquet and JSON refuse, out."""
    if NUL in text:
        text = text.replace(NUL, "")
    try:
        text.encode()
    except UnicodeEncodeError:
        # "\ud83d\ude00" written as two escapes is one emoji; what stays alone is none.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def whole(value: Any) -> int | None:
    """Counts come as numbers, as text, and as text with a fraction; what no count can be is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value.replace(",", "").lstrip("BbＢ#") if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if abs(number) < 1e15 else None


def truthy(value: Any) -> bool:
    return bool(value) and str(value).strip().lower() not in ("0", "false", "no", "n", "none", "null", "nan", "")
