"""Dumps that others made, taken in without scraping: rows in the import schema, Zeeschuimer, HAR, saved pages.

`read_dump` streams a file into captures, one a row, so that the archive can forget one post of a dump; a row that
cannot be read is skipped and reported with its line. `parse_import` makes posts of a capture.
"""

from __future__ import annotations

import base64
import gzip
import io
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

import orjson
import zstandard

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import sha256, text_digest
from persona_dagster.intake.inspect_file import recognise
from persona_dagster.intake.rows import flat_board, row_posts
from persona_dagster.intake.saved_pages import unwrap
from persona_dagster.records import Capture, Outcome, Source
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.parsed import AuthorKey, MalformedError, Parsed, incomplete
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.threads import payloads as threads

KINDS = frozenset(["post", "comment", "title", "post_flat", "post_clean"])
SOURCES = frozenset(["ptt", "dcard", "threads"])
MAX_LINE = 16 << 20  # bytes; the longest of 244,805 real rows has 0.4 MB
MAX_BAD_SHARE = 0.05  # above it the file is not what it claims to be
# Finds a row's source without decoding it; within a JSON text the quotes would carry backslashes.
SOURCE_MARK = re.compile(rb'"source": ?"(ptt|dcard|threads)"')
HEAD = 400  # bytes of a row in which its source usually stands
SAMPLE_ROWS = 2000  # rows after which the share is judged while reading; bad rows often stand together
MIN_BAD = 5  # so many bad rows are let pass in a short file
HOSTS = {
    "www.ptt.cc": "ptt",
    "www.dcard.tw": "dcard",
    "www.threads.com": "threads",
    "www.threads.net": "threads",
    "graph.threads.net": "threads",
}
SAVED_AS = (
    re.compile(rb'<link rel="canonical" href="(https?://[^"]+)"'),
    re.compile(rb'<meta property="(?:og|al:android):url" content="(https?://[^"]+)"'),
    re.compile(rb"^Snapshot-Content-Location: (https?://\S+)", re.MULTILINE),
    re.compile(rb"<!-- saved from url=\(\d+\)(https?://\S+) -->"),
)
NO_POSTS = frozenset(["listing", "boards", "refusal", "error", "empty", "forums"])
PTT_ARTICLE = re.compile(r"/bbs/([^/]+)/([MG]\.\d+\.A(?:\.[0-9A-F]+)?)\.html")
THREADS_POST = re.compile(r"/post/([A-Za-z0-9_-]+)")


class DumpError(ValueError):
    """A dump that cannot be taken in; the message names file, line and cure."""


@dataclass(frozen=True)
class BadRow:
    """A row that was skipped."""

    path: Path
    line: int  # from 1; of a HAR, the entry
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


def read_dump(
    path: Path, source: Source, *, problems: list[BadRow] | None = None, denied: Collection[str] = ()
) -> Iterator[Capture]:
    """The rows of `source` in a dump, in order; rows of other sources and of denied boards are passed over.

    Takes `.jsonl`/`.ndjson` (also `.gz`, `.zst`) in the import schema or Zeeschuimer's, `.har`, and saved
    `.html`/`.json`. Bad rows are appended to `problems`. Raises `DumpError` when more than 5 % of the rows (and more
    than 5) are bad, or the file ends within its compression.
    """
    problems = [] if problems is None else problems
    fetched_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    name = path.name.removesuffix(".gz").removesuffix(".zst").lower()
    if name.endswith(".har"):
        yield from _read_har(path, source, fetched_at, problems)
    elif name.endswith((".html", ".htm", ".mhtml")) or (name.endswith(".json") and not _first_line_is_row(path)):
        yield from _read_saved(path, source, fetched_at, problems)
    else:
        yield from _read_rows(path, source, fetched_at, problems, frozenset(denied))


def open_dump(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed as they are read."""
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(IO[bytes], io.BufferedReader(ZstdFile(path), 1 << 20))
    return path.open("rb")


class ZstdFile(io.RawIOBase):
    """Reads zstd frames and raises EOFError where the last one is cut: zstandard's own reader just ends."""

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._fed = False  # something of the current frame was read
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._fed = zstandard.ZstdDecompressor().decompressobj(), False
            chunk = chunk or self._file.read(1 << 18)
            if not chunk:
                if self._fed:
                    raise EOFError("the zstd frame ends early")
                return 0
            self._fed = True
            self._ready = self._frame.decompress(chunk)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line that is not blank; a line beyond `MAX_LINE` comes cut to that length."""
    number = 0
    with open_dump(path) as file:
        try:
            while line := file.readline(MAX_LINE):
                number += 1
                rest = line
                while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(MAX_LINE)
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.isspace():
                    yield number, line
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise DumpError(
                f"{path}: cannot be decompressed after line {number}: {error}; fetch the file again, what came before "
                "is taken in"
            ) from error


def _read_rows(
    path: Path, source: Source, fetched_at: datetime, problems: list[BadRow], denied: frozenset[str]
) -> Iterator[Capture]:
    own = source.encode()
    bad = seen = 0
    for number, line in _lines(path):
        seen += 1
        if (mark := SOURCE_MARK.search(line, 0, HEAD)) and mark[1] != own:
            continue  # whoever reads that source checks the row: three readers decode each row once
        try:
            row = checked(line)
        except ValueError as error:
            bad += 1
            problems.append(BadRow(path, number, str(error)))
            if bad > MAX_BAD_SHARE * max(seen, SAMPLE_ROWS):
                raise DumpError(_too_many(path, bad, seen, problems)) from error
            continue
        if row["source"] == source and row.get("board") not in denied:
            yield _capture(source, row["key"], row["url"], line.strip(), fetched_at)
    if bad > max(MIN_BAD, MAX_BAD_SHARE * seen) or (bad and bad == seen):
        raise DumpError(_too_many(path, bad, seen, problems))


def _too_many(path: Path, bad: int, seen: int, problems: list[BadRow]) -> str:
    return (
        f"{path}: {bad} of {seen} rows cannot be read, above {MAX_BAD_SHARE:.0%}; the last at line "
        f"{problems[-1].line}: {problems[-1].why}. One JSON object a line with source, kind and text is expected."
    )


def checked(line: bytes) -> dict[str, Any]:
    """The row's source, board, key and URL. Raises ValueError that says what is wrong with it."""
    if len(line) >= MAX_LINE:
        raise ValueError(f"a line of more than {MAX_LINE >> 20} MiB")
    row = orjson.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__} where an object belongs")
    if "source_platform" in row:
        return _zeeschuimer(row)
    if isinstance(row.get("messages"), list):  # a dialogue: `capybara.read_dialogues` takes those
        return {"source": "capybara", "key": "", "url": ""}
    named = str(row.get("source")) in SOURCES and str(row.get("kind")) in KINDS
    if not (named and isinstance(row.get("text"), str)):
        wrong = {name: str(row.get(name))[:20] for name in ("source", "kind")}
        raise ValueError(f"no row of the import schema: {wrong}, text is a {type(row.get('text')).__name__}")
    # Without an id the row's own bytes name it: the same row read again is the same row.
    row_id = row.get("id") or text_digest(line.strip().decode())[:20]
    board = row.get("board") or flat_board(row["text"])
    return {"source": row["source"], "board": str(board), "key": f"{row['kind']}:{row_id}", "url": ""}


def _zeeschuimer(row: dict[str, Any]) -> dict[str, Any]:
    data = row.get("data")
    if not isinstance(data, dict):
        raise ValueError("a Zeeschuimer row without data")
    platform = str(row["source_platform"]).removeprefix("www.").split(".")[0]
    key = f"zeeschuimer:{row.get('item_id') or data.get('pk')}"
    return {"source": platform, "board": "", "key": key, "url": row.get("source_platform_url") or ""}


def _capture(source: Source, key: str, url: str, body: bytes, fetched_at: datetime) -> Capture:
    return Capture(
        source=source,
        board=IMPORT_BOARD,
        kind="import",
        key=key,
        url=url,
        fetched_at=fetched_at,
        status=200,
        outcome=Outcome.OK,
        headers={},
        body=body,
        sha256=sha256(body),
    )


def _first_line_is_row(path: Path) -> bool:
    """True for a `.json` that is JSON lines all the same, as many crawlers name it."""
    first = next(islice(_lines(path), 1), None)
    if first is None:
        return True
    try:
        checked(first[1])
    except ValueError:
        return False
    return True


def _read_saved(path: Path, source: Source, fetched_at: datetime, problems: list[BadRow]) -> Iterator[Capture]:
    """A page or payload that somebody saved: it says itself which site it is from, and PTT's which article it is."""
    with open_dump(path) as file:
        saved = file.read(MAX_LINE)
    url, body = saved_url(saved), unwrap(saved)
    found = recognise(body, path)
    if found.source is None and not body.lstrip().startswith(b"<"):
        problems.append(BadRow(path, 1, f"a payload of no known shape: {found.parsed.why}"))
    elif found.source is None or found.kind in NO_POSTS:
        problems.append(BadRow(path, 1, f"{found.kind}: {found.parsed.why or 'no posts in it'}"))
    elif found.source == source:
        if source == "ptt":
            url = next((post.url for post in found.parsed.posts), url)
            if not PTT_ARTICLE.search(url):
                problems.append(BadRow(path, 1, "which article is it? Name the file <Board>__<article id>.html"))
                return
        yield _capture(source, f"saved:{path.name.split('.')[0]}:{sha256(body)[:12]}", url, body, fetched_at)


def saved_url(body: bytes) -> str:
    """The address that a saved page gives for itself, or nothing."""
    head = body[: 1 << 18].replace(b"&#064;", b"@")
    found = next((match for pattern in SAVED_AS if (match := pattern.search(head))), None)
    return found[1].decode("utf-8", "replace") if found else ""


def _read_har(path: Path, source: Source, fetched_at: datetime, problems: list[BadRow]) -> Iterator[Capture]:
    """The answers of the site in a browser's recording; nothing but address, time and body is taken."""
    with open_dump(path) as file:
        try:
            entries = orjson.loads(file.read())["log"]["entries"]
        except (ValueError, KeyError, TypeError) as error:
            raise DumpError(f"{path}: is no HAR: {error}; export it again from the browser's network panel") from error
    for number, entry in enumerate(entries, 1):
        try:
            if found := _har_answer(entry, source, fetched_at):
                yield found
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problems.append(BadRow(path, number, f"an entry without {error}"))


def _har_answer(entry: dict[str, Any], source: Source, fetched_at: datetime) -> Capture | None:
    """The answer of one entry, if it is a page or payload of the site."""
    url, content = entry["request"]["url"], entry["response"].get("content", {})
    text = content.get("text") or ""
    wanted = HOSTS.get(urlsplit(url).hostname or "") == source and entry["response"].get("status") == 200
    if not (wanted and text and re.search("html|json", content.get("mimeType", ""))):
        return None
    body = base64.b64decode(text) if content.get("encoding") == "base64" else text.encode()
    at = entry.get("startedDateTime")
    when = datetime.fromisoformat(at).astimezone(UTC) if at else fetched_at
    # The query may carry a session; the body says by itself what it is.
    return _capture(source, f"saved:har:{sha256(body)[:12]}", url.split("?", 1)[0], body, when)


def parse_import(capture: Capture, author_key: AuthorKey) -> Parsed:
    """The posts of one imported capture, of whatever form it was."""
    form = capture.key.split(":", 1)[0]
    try:
        if form == "saved":
            return _parse_saved(capture, author_key)
        row = orjson.loads(capture.body)
        if form == "zeeschuimer":
            posts = threads.posts_from_payload({"thread_items": [{"post": row["data"]}]}, IMPORT_BOARD, author_key)
            return Parsed(Outcome.OK, posts)
        return Parsed(Outcome.OK, row_posts(row, capture.key.split(":", 1)[1], author_key))
    except (orjson.JSONDecodeError, MalformedError, KeyError, TypeError) as error:
        return incomplete(f"{type(error).__name__}: {error}")


def _parse_saved(capture: Capture, author_key: AuthorKey) -> Parsed:
    path = urlsplit(capture.url).path
    if capture.source == "ptt":
        article = PTT_ARTICLE.search(path)
        if not article:
            return incomplete("a saved PTT page that does not say which article it is")
        return ptt.parse_article(
            capture.body,
            board=article[1],
            article_id=article[2],
            author_key=author_key,
            fetched_at=capture.fetched_at,
        )
    if capture.source == "dcard":
        return dcard.parse_dcard(capture.body, board=IMPORT_BOARD, author_key=author_key)
    code = THREADS_POST.search(path)
    parse: Callable[..., Parsed] = partial(threads.parse_threads, code=code[1] if code else None)
    return parse(capture.body, board=IMPORT_BOARD, author_key=author_key)
