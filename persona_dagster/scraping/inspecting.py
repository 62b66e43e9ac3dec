"""What is this file, and does it parse? For an operator whose site changed its pages overnight."""

from __future__ import annotations

import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_dagster.digest import author_key
from persona_dagster.records import Outcome, Post, Source
from persona_dagster.scraping import dcard, ptt, threads
from persona_dagster.scraping.outcomes import classify
from persona_dagster.scraping.parsed import MalformedError, Parsed, decode, incomplete
from persona_dagster.scraping.ptt_listing import parse_listing
from persona_dagster.scraping.ptt_markup import MAIN

NAMED = re.compile(r"([0-9A-Za-z][0-9A-Za-z_.\-]*?)(?:__|/)([MG]\.\d{9,10}\.A(?:\.[0-9A-F]{1,3})?)(?:\.html)?$")
PTT_ADDRESS = re.compile(r"/bbs/([0-9A-Za-z][0-9A-Za-z_.\-]*)/([MG]\.\d{9,10}\.A(?:\.[0-9A-F]{1,3})?)\.html")
NOT_FOUND = re.compile(r"<title>\s*(404|410|500|503)\b")
POST_CODE = re.compile(r'<link rel="canonical" href="https://www\.threads\.(?:com|net)/@[^/"]+/post/([A-Za-z0-9_-]+)')
SHOWN = (
    *("kind", "post_id", "parent_id", "thread_id", "author_key", "created_at", "title", "text_raw", "quoted"),
    *("score", "tag", "floor", "flags"),
)


@dataclass(slots=True)
class Recognised:
    source: Source | None
    kind: str
    parsed: Parsed


def parse_file(path: Path) -> dict[str, Any]:
    """One saved page or payload as a JSON-like dict: what it is, the outcome, why, flags, posts and their counts.

    Authors appear as keys made for this call alone.
    """
    found = recognise(path.read_bytes(), path)
    posts = [{name: asdict(post)[name] for name in SHOWN} for post in found.parsed.posts]
    return {
        "file": str(path),
        "source": found.source,
        "kind": found.kind,
        "outcome": found.parsed.outcome.value,
        "complete": found.parsed.complete,
        "why": found.parsed.why,
        "flags": found.parsed.flags,
        "posts": sum(post["kind"] == "post" for post in posts),
        "comments": sum(post["kind"] != "post" for post in posts),
        "rows": posts,
    }


def recognise(body: bytes, path: Path) -> Recognised:
    """Which site's what, from the content; the name of the file helps only with an article's id."""
    try:
        text = decode(body)
    except MalformedError as error:
        return Recognised(None, "unknown", incomplete(str(error)))
    if not text.strip():
        return Recognised(None, "empty", Parsed(Outcome.TRUNCATED, why="an empty file"))
    return _page(text, body, path) if text.lstrip().startswith("<") else _payload(text, body, path)


def _key(source: str):
    secret = secrets.token_bytes(16)
    return lambda author: author_key(secret, source, author)


def _page(text: str, body: bytes, path: Path) -> Recognised:  # noqa: PLR0911 - one return a kind
    if MAIN.search(text) or ("bbs-content" in text and "article-metaline" in text):
        board, article_id = _article_name(text, path)
        parsed = ptt.parse_article(body, board=board, article_id=article_id, author_key=_key("ptt"))
        return Recognised("ptt", "article", parsed)
    if "r-list-container" in text:
        return Recognised("ptt", "listing", _listing(body))
    if 'class="b-ent"' in text:
        boards = text.count('class="b-ent"')
        return Recognised("ptt", "boards", Parsed(Outcome.OK, why=f"{boards} boards"))
    status = int(found[1]) if (found := NOT_FOUND.search(text)) else 200
    outcome, why = classify("https://unknown/", status, {}, body)
    if outcome is not Outcome.OK:
        source: Source | None = "ptt" if "ptt.cc" in text else None
        return Recognised(source, "refusal" if status == 200 else "error", Parsed(outcome, why=why))
    if "__NEXT_DATA__" in text:
        return Recognised("dcard", "page", dcard.parse_dcard(body, board="", author_key=_key("dcard")))
    if "data-sjs" in text or "threads.com" in text or "threads.net" in text:
        code = found[1] if (found := POST_CODE.search(text)) else None
        return Recognised(
            "threads", "page", threads.parse_threads(body, board="", author_key=_key("threads"), code=code)
        )
    return Recognised(None, "unknown", incomplete("a page of none of the three sites, or a part without its mark"))


def _listing(body: bytes) -> Parsed:
    try:
        listing = parse_listing(body)
    except MalformedError as error:
        return incomplete(str(error))
    deleted = sum(row.article_id is None for row in listing.rows)
    pinned = sum(row.pinned for row in listing.rows)
    return Parsed(Outcome.OK, why=f"{len(listing.rows)} rows, {deleted} deleted, {pinned} pinned")


def _article_name(text: str, path: Path) -> tuple[str, str]:
    """Board and id: from the canonical link, the file's name, or the article's own URL line; else empty."""
    canonical = re.search(r'<link rel="canonical" href="([^"]*)"', text)
    if canonical and (address := PTT_ADDRESS.search(canonical[1])):
        return address[1], address[2]
    if named := NAMED.search(path.name):
        return named[1], named[2]
    addresses = re.findall(r"※ 文章網址: <a href=\"([^\"]*)\"", text)
    address = PTT_ADDRESS.search(addresses[-1]) if addresses else None
    return (address[1], address[2]) if address else ("", "")


def _payload(text: str, body: bytes, path: Path) -> Recognised:
    try:
        value = dcard.load_json(text)
    except MalformedError as error:
        return _lines(text, path) or Recognised(None, "unknown", incomplete(str(error)))
    if _holds(value, ("thread_items", "permalink", "pk")):
        return Recognised("threads", "payload", threads.parse_threads(body, board="", author_key=_key("threads")))
    parsed = dcard.parse_dcard(body, board="", author_key=_key("dcard"))
    kind = "forums" if "forums" in parsed.flags else "list" if "listed" in parsed.flags else "payload"
    known = kind != "payload" or parsed.posts or _holds(value, ("forumAlias", "postId"))
    return Recognised("dcard" if known else None, kind if known else "unknown", parsed)


def _holds(value: Any, names: tuple[str, ...]) -> bool:
    if isinstance(value, dict):
        return any(name in value for name in names) or any(_holds(item, names) for item in value.values())
    return isinstance(value, list) and any(_holds(item, names) for item in value)


def _lines(text: str, path: Path) -> Recognised | None:
    """NDJSON as Zeeschuimer exports it: one item a line, the post under `data`."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not lines[0].startswith("{"):
        return None
    posts: list[Post] = []
    try:
        for line in lines:
            posts += threads.posts_from_payload(dcard.load_json(line), "", _key("threads"))
    except MalformedError as error:
        return Recognised("threads", "ndjson", incomplete(f"{path.name}: {error}", posts))
    return Recognised("threads", "ndjson", Parsed(Outcome.OK, posts)) if posts else None
