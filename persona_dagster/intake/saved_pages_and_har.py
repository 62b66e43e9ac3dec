"""Pages and payloads that somebody saved or recorded: browsers' files, HAR, Zeeschuimer → captures, and their posts.

They are archived as the site sent them, and read by the parsers of `sites/`, as what is crawled.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import sha256
from persona_dagster.intake.inspect_saved_page import Recognised, recognise
from persona_dagster.intake.items import Item
from persona_dagster.intake.open_and_decode import Unit
from persona_dagster.intake.schema import RowError
from persona_dagster.intake.unwrap_saved_page import MIME, saved_url, unwrap
from persona_dagster.records import Capture
from persona_dagster.sites.browser_responses import ITEM, OF_THE_FILE, PTT_ARTICLE, SAVED, browsed, capture_of

NO_POSTS = frozenset(["listing", "boards", "refusal", "error", "empty", "forums", "feed", "list", "poll"])


@dataclass(frozen=True)
class ReadablePage:
    """A page or payload of a site, and how it is read."""

    format: str
    items: Callable[[], Iterator[Item]]


def is_mhtml(head: bytes) -> bool:
    return MIME.match(head[:4096]) is not None


def page(unit: Unit, body: bytes) -> ReadablePage | None:
    """A saved page of one of the sites; None for HTML of anywhere else, which may be a note."""
    found = recognise(body, Path(unit.name.rpartition("!")[2]))
    if found.source is None and found.kind in ("unknown", "empty"):
        return None
    return ReadablePage(
        f"saved page ({found.source or 'unknown site'}, {found.kind})", lambda: iter([_saved(unit, body, found)])
    )


def payload(unit: Unit, value: Any) -> ReadablePage | None:
    """What a site's own interface answered, saved as JSON; None for JSON of anything else."""
    body = orjson.dumps(value)
    found = recognise(body, Path(unit.name.rpartition("!")[2]))
    if found.source is None or found.kind == "har" or (found.kind == "payload" and not found.parsed.posts):
        return None
    return ReadablePage(f"saved payload ({found.source}, {found.kind})", lambda: iter([_saved(unit, body, found)]))


def _saved(unit: Unit, saved: bytes, found: Recognised) -> Item:
    """The one item of a saved page. PTT's has to say which article it is."""
    body, url = unwrap(saved), saved_url(saved)
    if found.kind in NO_POSTS or found.source is None:
        return Item(
            1,
            code="no_posts",
            why=f"{found.kind}: {found.parsed.why or 'no posts in it'}",
            cure="Save the page of the post itself",
        )
    if found.source == "ptt":
        url = next((post.url for post in found.parsed.posts), url)
        if not PTT_ARTICLE.search(url):
            return Item(
                1,
                code="which_article",
                why="nothing in it says which article it is",
                cure="Name the file <Board>__<article id>.html",
            )
    if not found.parsed.posts:
        return Item(
            1,
            code="no_posts",
            why=found.parsed.why or "no posts in it",
            cure="Save it as HTML: MHTML leaves out the scripts that hold the posts; or record a HAR"
            if is_mhtml(saved)
            else "Save the page again when it has loaded whole",
        )
    stem = unit.name.rpartition("/")[2].rpartition("!")[2].split(".")[0]
    return Item(1, captures=(capture_of(found.source, IMPORT_BOARD, SAVED, f"{stem}-{sha256(body)[:12]}", url, body),))


def har_items(unit: Unit, entries: list[Any]) -> Iterator[Item]:
    """The answers of the three sites in a browser's recording; nothing but address, time and body is taken."""
    for number, entry in enumerate(entries, 1):
        try:
            found = _har_answer(entry)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            yield Item(
                number,
                code="no_entry",
                why=f"an entry without {error}",
                cure="Export the recording again, with content",
            )
            continue
        if found:
            yield Item(number, captures=tuple(found))
        else:
            yield Item(
                number,
                code="not_a_post",
                why="no page or payload with posts of the three sites",
                cure="Nothing to mend",
            )


def _har_answer(entry: dict[str, Any]) -> list[Capture]:
    """What is kept of the answer of one entry."""
    content = entry["response"].get("content", {})
    text = content.get("text") or ""
    if entry["response"].get("status") != 200 or not text:
        return []
    body = base64.b64decode(text) if content.get("encoding") == "base64" else text.encode("utf-8", "replace")
    at = entry.get("startedDateTime")
    when = datetime.fromisoformat(at).astimezone(UTC) if at else OF_THE_FILE
    kept = browsed(entry["request"]["url"], content.get("mimeType", ""), body)
    return [
        capture_of(one.source, IMPORT_BOARD, SAVED, f"har-{sha256(one.body)[:12]}", one.url, one.body, when)
        for one in kept
    ]


def zeeschuimer_item(row: Any) -> Capture:
    """One item of Zeeschuimer's export: the site's own post under `data`. Raises `RowError`."""
    data = row.get("data") if isinstance(row, dict) else None
    if not isinstance(data, dict):
        raise RowError("no_data", "a Zeeschuimer row without data", "Export it again from Zeeschuimer as NDJSON")
    platform = str(row.get("source_platform")).removeprefix("www.").split(".")[0]
    if platform != "threads":
        raise RowError("other_site", f"a Zeeschuimer row of {platform}", "Posts of Threads are read")
    key = str(row.get("item_id") or data.get("pk"))
    address = str(row.get("source_platform_url") or "")
    return capture_of("threads", IMPORT_BOARD, ITEM, key, address, orjson.dumps(data))
