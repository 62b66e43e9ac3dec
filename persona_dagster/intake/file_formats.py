"""What is this file, and what does it hold? One answer for `persona import`, `persona clean` and the graph.

`streams` opens a unit as one or more streams of items, each with its row in the file: rows of the import schema, a
page or payload as it was saved, a dialogue, or why it cannot be read. A note is a stream without items: it stays whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import orjson

from persona_dagster.intake import chats, saved_pages_and_har, tables
from persona_dagster.intake.capybara import dialogue_of
from persona_dagster.intake.items import Item
from persona_dagster.intake.mapping import SEEN, ColumnMapping, Mappings, columns_of, guess
from persona_dagster.intake.open_and_decode import WIDE, IntakeError, Unit, encoding_of, head_of, whole
from persona_dagster.intake.schema import Row, RowError
from persona_dagster.records import Capture
from persona_dagster.sites.parser_results import MAX_BODY

Holds = Literal["rows", "pages", "dialogues", "notes", "nothing"]
NOTES = (".md", ".mdx", ".markdown", ".ipynb", ".txt", ".html", ".htm", ".pdf", ".docx")
BESIDE = re.compile(
    r"(?i)^(?:readme|license|licence|changelog|copying|notice|dataset_infos?|state|manifest|package)(?:[._-].*)?$"
)
PICTURES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".gif",
    ".webp",
    ".mp4",
    ".css",
    ".js",
    ".svg",
    ".ico",
    ".woff",
    ".woff2",
    ".mp3",
    ".lock",
    ".py",
)
JSON_WHOLE = 64 << 20  # a JSON document up to this size is read in one piece to see what it is


@dataclass(frozen=True)
class Options:
    """What the user says of a file, in place of guessing."""

    source: str | None = None
    board: str | None = None
    kind: str | None = None
    columns: dict[str, str] = field(default_factory=dict)  # field → column
    encoding: str | None = None
    delimiter: str | None = None
    time_zone: str | None = None
    mapping: ColumnMapping | None = None

    def given(self) -> dict[str, str]:
        named = {"source": self.source, "board": self.board, "kind": self.kind}
        return {**self.columns, **{name: value for name, value in named.items() if value}}


@dataclass(frozen=True)
class Stream:
    """A file, sheet or table that can be read: what it is, how it is read, and the reading."""

    name: str
    format: str
    holds: Holds
    items: Callable[[], Iterator[Item]]
    mapping: ColumnMapping | None = None
    encoding: str | None = None
    delimiter: str | None = None
    settled: bool = False  # the mapping comes from a file


def streams(unit: Unit, options: Options | None = None, mappings: Mappings | None = None) -> Iterator[Stream]:
    """The streams of one unit. Raises `IntakeError` for what is no file that is known."""
    options = options or Options()
    name = unit.name.rpartition("!")[2].rpartition("/")[2]
    if BESIDE.match(name) or unit.suffix in PICTURES:
        yield Stream(unit.name, "left aside", "nothing", lambda: iter(()))
        return
    head = head_of(unit)
    if not head:
        raise IntakeError(unit.name, "is empty", "Put the file there again, or delete it")
    if found := _tables(unit, head):
        for table in found():
            yield from _table_stream(table, options, mappings)
    elif unit.suffix == ".docx" or head.startswith(b"%PDF"):
        yield _note(unit)
    else:
        yield from _text_streams(unit, head, options, mappings)


def _tables(unit: Unit, head: bytes) -> Callable[[], Iterator[tables.Table]] | None:
    """The reader of a binary table by its first bytes."""
    if head.startswith(b"PAR1"):
        return lambda: iter([tables.Table(unit.name, "Parquet", lambda: tables.parquet(unit))])
    if head.startswith(b"SQLite format 3\0") or unit.suffix in (".db", ".sqlite", ".sqlite3"):
        return lambda: tables.databases(unit)
    if head.startswith(b"ARROW1") or unit.suffix == ".arrow":
        return lambda: iter([tables.Table(unit.name, "Arrow", lambda: tables.arrow(unit))])
    if unit.suffix in (".xlsx", ".xlsm", ".xls", ".ods") or head.startswith(b"\xd0\xcf\x11\xe0"):
        return lambda: tables.sheets(unit)
    return None


def _text_streams(unit: Unit, head: bytes, options: Options, mappings: Mappings | None) -> Iterator[Stream]:
    encoding = options.encoding or encoding_of(head)
    try:
        text = head.decode("utf-8-sig" if encoding == "utf-8" else encoding, "ignore")
    except LookupError as error:
        raise IntakeError(
            unit.name, f"there is no encoding {encoding!r}", "Try utf-8, big5, gb18030 or utf-16"
        ) from error
    if _binary(head, encoding):
        known = "Export it as JSONL, CSV or Parquet"
        raise IntakeError(unit.name, f"is of no known kind ({unit.suffix or 'no suffix'})", known)
    start = text.lstrip("\ufeff \t\r\n")
    if not start:
        raise IntakeError(unit.name, "holds nothing but spaces", "Put the file there again, or delete it")
    if (
        start.startswith(("{", "["))
        and not start.startswith("[LINE]")
        and unit.suffix not in (".md", ".mdx", ".markdown")
    ):
        yield from _json_streams(unit, text, encoding, options, mappings)
    elif unit.suffix in (".md", ".mdx", ".markdown"):
        yield _note(unit)
    elif start.startswith("<") or saved_pages_and_har.is_mhtml(head):
        yield _page_or_note(unit)
    elif unit.suffix not in (".csv", ".tsv") and chats.is_line(text):
        name, messages = chats.line_chat(unit, encoding)
        yield Stream(
            unit.name,
            "LINE chat",
            "rows",
            lambda: _said(chats.conversations("LINE", name, messages)),
            encoding=encoding,
        )
    elif unit.suffix in (".csv", ".tsv", ".tab") or (unit.suffix not in NOTES and _looks_delimited(text)):
        delimiter = options.delimiter or ("\t" if unit.suffix == ".tsv" else tables.delimiter_of(unit, encoding))
        read = lambda: tables.delimited(unit, encoding, delimiter)  # noqa: E731 - a reader that starts anew each time
        table = tables.Table(unit.name, "TSV" if delimiter == "\t" else "CSV", read, encoding, delimiter)
        yield from _table_stream(table, options, mappings)
    elif unit.suffix in NOTES:
        yield _note(unit)
    else:
        table = tables.Table(unit.name, "JSON lines", lambda: tables.json_lines(unit, encoding), encoding)
        yield from _table_stream(table, options, mappings)


def _binary(head: bytes, encoding: str) -> bool:
    """Whether it is no text: NULs, where the encoding has none, or controls that no text has."""
    if encoding in WIDE:
        return False
    return b"\0" in head and sum(bytes([code]) in head for code in (*range(1, 9), *range(14, 27))) >= 3


def _looks_delimited(text: str) -> bool:
    """Whether the first whole lines have a delimiter as often as the first of them."""
    lines = [line for line in text.split("\n")[:6] if line.strip()][:5]
    counts = [[line.count(sign) for line in lines] for sign in ("\t", ",")]
    return len(lines) > 1 and any(each[0] >= 1 and min(each) >= each[0] for each in counts)


def _json_streams(
    unit: Unit, text: str, encoding: str, options: Options, mappings: Mappings | None
) -> Iterator[Stream]:
    first = text.lstrip("\ufeff \t\r\n").split("\n", 1)[0]
    lines = tables.Table(unit.name, "JSON lines", lambda: tables.json_lines(unit, encoding), encoding)
    if _is_object(first) and ("\n" in text.strip() or unit.suffix in (".jsonl", ".ndjson")):
        yield from _table_stream(lines, options, mappings)
        return
    value = _document(unit, encoding)
    if isinstance(value, dict):
        if isinstance(value.get("log"), dict) and isinstance(value["log"].get("entries"), list):
            yield Stream(
                unit.name, "HAR", "pages", lambda: saved_pages_and_har.har_items(unit, value["log"]["entries"])
            )
            return
        if chats.is_discord(value):
            name, messages = chats.discord_chat(value)
            yield Stream(
                unit.name, "Discord chat", "rows", lambda: _said(chats.conversations("Discord", name, messages))
            )
            return
        if "nbformat" in value and "cells" in value:
            yield _note(unit)
            return
    if value is not None and (found := saved_pages_and_har.payload(unit, value)):
        yield Stream(unit.name, found.format, "pages", found.items)
        return
    if unit.suffix == ".har":
        raise IntakeError(unit.name, "is no HAR", "Export it again from the browser's network panel")
    if isinstance(value, dict):
        table = tables.Table(unit.name, "JSON", lambda: tables.json_object(unit, value), encoding)
    elif isinstance(value, list):
        table = tables.Table(unit.name, "JSON array", lambda: enumerate(value, 1), encoding)
    elif first.startswith("["):
        table = tables.Table(unit.name, "JSON array", lambda: tables.json_array(unit, encoding), encoding)
    else:
        table = lines
    yield from _table_stream(table, options, mappings)


def _is_object(line: str) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _document(unit: Unit, encoding: str) -> Any:
    """A whole JSON document of moderate size; None where it is larger, or none."""
    if len(head_of(unit, JSON_WHOLE + 1)) > JSON_WHOLE:
        return None
    try:
        return orjson.loads(whole(unit).decode("utf-8-sig" if encoding == "utf-8" else encoding).strip())
    except (orjson.JSONDecodeError, UnicodeDecodeError):
        return None


def _table_stream(table: tables.Table, options: Options, mappings: Mappings | None) -> Iterator[Stream]:
    """A table of rows, of dialogues, of questions with answers, or of Zeeschuimer's items, by its first records."""
    seen: list[Any] = []
    problem: IntakeError | None = None
    try:
        seen = [record for _, record in islice(table.read(), SEEN)]
    except IntakeError as error:  # found again, at its place, when the table is read
        problem = error
    records = [record for record in seen if isinstance(record, dict) and record]
    about: dict[str, Any] = {"encoding": table.encoding, "delimiter": table.delimiter}
    if not records:
        first = next((record for record in seen if isinstance(record, IntakeError)), problem)
        if first is None and not seen and "!" in table.name:
            return  # an empty table of a database
        raise IntakeError(
            table.name,
            f"holds no records ({first.why})" if first else "holds no records",
            first.cure if first else "One object a line, or a table with a header, is expected",
        )
    if all("source_platform" in record for record in records):
        yield Stream(
            table.name, "Zeeschuimer", "pages", lambda: _captured(table, saved_pages_and_har.zeeschuimer_item), **about
        )
    elif sum(
        isinstance(record.get("messages"), list) or isinstance(record.get("conversation"), list) for record in records
    ) == len(records):
        if not any(isinstance(record.get("text"), str) for record in records) and _speaks(records[0]):
            yield Stream(table.name, table.format, "dialogues", lambda: _captured(table, dialogue_of), **about)
            return
        yield _rows_stream(table, records, options, mappings, about)
    elif all(isinstance(record.get("question"), str) and isinstance(record.get("answer"), str) for record in records):
        if table.name.endswith(".jsonl"):
            yield Stream(table.name, table.format, "notes", lambda: iter(()), **about)
            return
        asked = replace(options, source="notes", columns={"title": "question", "text": "answer", **options.columns})
        yield _rows_stream(table, records, asked, mappings, about)
    elif set(columns_of(records)) | {"Content"} >= chats.DISCORD_COLUMNS and {"AuthorID", "Author", "Date"} <= set(
        columns_of(records)
    ):
        name = table.name.rpartition("/")[2].rpartition("!")[2]
        messages = chats.discord_rows(table.read())
        yield Stream(
            table.name, "Discord chat", "rows", lambda: _said(chats.conversations("Discord", name, messages)), **about
        )
    else:
        yield _rows_stream(table, records, options, mappings, about)


def _speaks(record: dict[str, Any]) -> bool:
    turns = record.get("messages") or record.get("conversation") or [None]
    return isinstance(turns[0], dict) and ("content" in turns[0] or "input" in turns[0])


def _rows_stream(
    table: tables.Table, records: list[Any], options: Options, mappings: Mappings | None, about: dict[str, Any]
) -> Stream:
    settled = options.mapping or (None if options.given() else mappings.find(columns_of(records)) if mappings else None)
    if settled:
        mapping = settled.model_copy(update={"time_zone": options.time_zone or settled.time_zone})
    elif (
        all({"source", "kind", "text"} <= record.keys() for record in records if isinstance(record, dict))
        and not options.given()
    ):
        mapping = ColumnMapping(columns=("source", "kind", "text"), fields={})
    else:
        mapping = guess(records, table.name, given=options.given())
        mapping = mapping.model_copy(update={"time_zone": options.time_zone or mapping.time_zone})
    return Stream(
        table.name, table.format, "rows", lambda: _rows(table, mapping), mapping, settled=settled is not None, **about
    )


def _rows(table: tables.Table, mapping: ColumnMapping) -> Iterator[Item]:
    for number, record in table.read():
        if isinstance(record, IntakeError):
            yield Item(number, code="unreadable", why=record.why, cure=record.cure)
            continue
        try:
            yield Item(number, rows=tuple(mapping.rows(record)))
        except RowError as error:
            yield Item(number, code=error.code, why=error.why, cure=error.cure, raw=record)


def _captured(table: tables.Table, make: Callable[[Any], Capture]) -> Iterator[Item]:
    for number, record in table.read():
        if isinstance(record, IntakeError):
            yield Item(number, code="unreadable", why=record.why, cure=record.cure)
            continue
        try:
            yield Item(number, captures=(make(record),))
        except RowError as error:
            yield Item(number, code=error.code, why=error.why, cure=error.cure, raw=record)


def _said(messages: Iterator[tuple[int, Row | IntakeError | None]]) -> Iterator[Item]:
    for number, one in messages:
        if one is None:
            yield Item(number, code="no_words", why="a sticker, picture, call or bot", cure="Nothing to mend")
        elif isinstance(one, IntakeError):
            yield Item(number, code="unreadable", why=one.why, cure=one.cure)
        else:
            yield Item(number, rows=(one,))


def _note(unit: Unit) -> Stream:
    if unit.suffix not in NOTES:
        known = ", ".join(NOTES)
        raise IntakeError(unit.name, "is a note whose name does not say of which kind", f"Let it end in one of {known}")
    return Stream(unit.name, f"note ({unit.suffix.lstrip('.') or 'text'})", "notes", lambda: iter(()))


def _page_or_note(unit: Unit) -> Stream:
    body = whole(unit, MAX_BODY * 4)
    if found := saved_pages_and_har.page(unit, body):
        return Stream(unit.name, found.format, "pages", found.items)
    return _note(unit)
