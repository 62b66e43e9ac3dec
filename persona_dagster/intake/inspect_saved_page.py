"""What is this file, and does it parse? For an operator whose site changed its pages overnight."""

from __future__ import annotations

import base64
import html
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from persona_dagster.crawl.outcomes import BY_STATUS, classify
from persona_dagster.digest import author_key
from persona_dagster.intake.unwrap_saved_page import saved_url, unwrap
from persona_dagster.records import Outcome, Post, Source
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.dcard.pages import POST_LINK
from persona_dagster.sites.json_validation import load_json
from persona_dagster.sites.parser_results import MAX_BODY, MalformedError, Parsed, decode, incomplete
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster.sites.ptt.markup import MAIN
from persona_dagster.sites.threads import payloads as threads

NAMED = re.compile(r"([0-9A-Za-z][0-9A-Za-z_.\-]*?)(?:__|/)([MG]\.\d{9,10}\.A(?:\.[0-9A-F]{1,3})?)(?:\.html)?$")
PTT_ADDRESS = re.compile(r"/bbs/([0-9A-Za-z][0-9A-Za-z_.\-]*)/([MG]\.\d{9,10}\.A(?:\.[0-9A-F]{1,3})?)\.html")
# Titles of what stands in a page's place: PTT's and nginx's own, and Cloudflare's.
ERROR_TITLE = re.compile(r"<title>\s*(?:[^<|]*\|\s*)?(4\d\d|5\d\d)\b")
ACCESS_DENIED = re.compile(r"<title>\s*Access denied\b|used Cloudflare to restrict access")
BOARD = re.compile(r'<div class="board-name">([^<]*)</div>')
ENTRY = re.compile(r"<entry>(.*?)</entry>", re.DOTALL)
ENTRY_TITLE = re.compile(r"<title[^>]*>([^<]*)</title>")
# The Graph API's numbers for "too often" and for "not with this token".
GRAPH_OFTEN, GRAPH_TOKEN = frozenset([4, 17, 32, 613]), frozenset([10, 102, 190, 200])
SITES: tuple[tuple[str, Source], ...] = (
    *(("thread_items", "threads"), ("text_post_app_info", "threads"), ("threads.net", "threads")),
    *(("threads.com", "threads"), ("forumAlias", "dcard"), ("dcard.tw", "dcard"), ("ptt.cc", "ptt")),
    *(("bbs-screen", "ptt"), ("over18-notice", "ptt")),
)
POST_CODE = re.compile(r'<link rel="canonical" href="https://www\.threads\.(?:com|net)/@[^/"]+/post/([A-Za-z0-9_-]+)')
SHOWN = (
    *("kind", "post_id", "parent_id", "thread_id", "author_key", "created_at", "title", "text_raw", "text"),
    *("quoted", "score", "tag", "floor", "flags"),
)


@dataclass(slots=True)
class Recognised:
    source: Source | None
    kind: str
    parsed: Parsed
    listed: list[dict[str, Any]] = field(default_factory=list)  # rows of a page that names posts


def parse_file(path: Path) -> dict[str, Any]:
    """One saved page or payload as a JSON-like dict: what it is, the outcome, why, flags, posts and their counts.

    `listed` holds the rows of listings, lists, feeds and board lists, which name posts and hold none. Authors appear
    as keys made for this call alone.
    """
    try:
        found = recognise(path.read_bytes(), path)
    except OSError as error:
        found = Recognised(None, "unreadable", Parsed(Outcome.TRUNCATED, why=error.strerror or str(error)))
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
        "listed": found.listed,
    }


def recognise(body: bytes, path: Path) -> Recognised:
    """Which site's what, from the content; the name of the file helps only with an article's id."""
    address, body = saved_url(body), unwrap(body)
    try:
        text = decode(body)
    except MalformedError as error:
        # What it was is told all the same: a page cut within a character is still an article.
        text = body[:MAX_BODY].decode("utf-8", "replace").lstrip("\ufeff")
        if not text.lstrip().startswith("<"):
            return Recognised(_site(text), "unknown", incomplete(str(error)))
    if not text.strip():
        return Recognised(None, "empty", Parsed(Outcome.TRUNCATED, why="an empty file"))
    return _page(text, body, path, address) if text.lstrip().startswith("<") else _payload(text, body, path)


def _site(text: str) -> Source | None:
    """Whose it is, where nothing but the words in it can tell."""
    return next((source for word, source in SITES if word in text), None)


def _key(source: str):
    secret = secrets.token_bytes(16)
    return lambda author: author_key(secret, source, author)


def _page(text: str, body: bytes, path: Path, address: str) -> Recognised:  # noqa: PLR0911 - one return a kind
    if MAIN.search(text) or ("bbs-content" in text and "article-metaline" in text):
        board, article_id = _article_name(text, path)
        parsed = ptt.parse_article(body, board=board, article_id=article_id, author_key=_key("ptt"))
        return Recognised("ptt", "article", parsed)
    if "r-list-container" in text:
        return _listing(body)
    if 'class="b-ent"' in text:
        boards = [{"board": html.unescape(name).strip()} for name in BOARD.findall(text)]
        return Recognised("ptt", "boards", Parsed(Outcome.OK, flags=["listed"], why=f"{len(boards)} boards"), boards)
    if "<feed" in text[:500] and "ptt.cc/bbs/" in text:
        return _feed(text)
    status = 403 if ACCESS_DENIED.search(text) else int(found[1]) if (found := ERROR_TITLE.search(text)) else 200
    outcome, why = classify("https://unknown/", status, {}, body)
    if outcome is not Outcome.OK:
        return Recognised(_site(text), "refusal" if status in (200, 403) else "error", Parsed(outcome, why=why))
    if "__NEXT_DATA__" in text:
        return Recognised("dcard", "page", dcard.parse_dcard(body, board="", author_key=_key("dcard")))
    if link := POST_LINK.match(address):  # as the server renders it: the text stands in the page
        parsed = dcard.parse_dcard(body, board=link[1], author_key=_key("dcard"), post_id=link[2])
        return Recognised("dcard", "page", parsed)
    if "data-sjs" in text or "threads.com" in text or "threads.net" in text or "<title>Threads" in text:
        code = found[1] if (found := POST_CODE.search(text)) else None
        return Recognised(
            "threads", "page", threads.parse_threads(body, board="", author_key=_key("threads"), code=code)
        )
    return Recognised(
        _site(text), "unknown", incomplete("a page of none of the three sites, or a part without its mark")
    )


def _listing(body: bytes) -> Recognised:
    try:
        listing = parse_listing(body)
    except MalformedError as error:
        return Recognised("ptt", "listing", incomplete(str(error)))
    deleted = sum(row.article_id is None for row in listing.rows)
    pinned = sum(row.pinned for row in listing.rows)
    rows = [
        {
            "post_id": row.article_id,
            "title": row.title,
            "date": row.date,
            "pushes": row.pushes,
            "mark": row.mark,
            "flags": [name for name, is_so in (("deleted", not row.article_id), ("pinned", row.pinned)) if is_so],
        }
        for row in listing.rows
    ]
    why = f"{len(rows)} rows, {deleted} deleted, {pinned} pinned"
    return Recognised("ptt", "listing", Parsed(Outcome.OK, flags=["listed"], why=why), rows)


def _feed(text: str) -> Recognised:
    rows = []
    for entry in ENTRY.findall(text):
        address, title = PTT_ADDRESS.search(entry), ENTRY_TITLE.search(entry)
        if address:
            rows.append({"post_id": address[2], "board": address[1], "title": html.unescape(title[1]) if title else ""})
    if not text.rstrip().endswith("</feed>") or len(rows) != text.count("<entry>"):
        return Recognised("ptt", "feed", incomplete("the feed is cut, or an entry names no article"), rows)
    return Recognised("ptt", "feed", Parsed(Outcome.OK, flags=["listed"], why=f"{len(rows)} entries"), rows)


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


def _payload(text: str, body: bytes, path: Path) -> Recognised:  # noqa: PLR0911 - one return a kind
    try:
        value = load_json(text)
    except MalformedError as error:
        return _lines(text, path) or Recognised(_site(text), "unknown", incomplete(str(error)))
    if isinstance(value, dict):
        if isinstance(value.get("log"), dict) and isinstance(value["log"].get("entries"), list):
            return _har(value["log"]["entries"], path)
        if isinstance(value.get("contentHtml"), str):
            return _poll(value)
        if found := _refusal(value):
            return found
        if value.get("data") == []:
            parsed = Parsed(Outcome.EMPTY_OR_FILTERED, why="no posts: none there, or filtered")
            return Recognised("threads", "payload", parsed)
    if _holds(value, ("thread_items", "permalink", "pk")):
        return Recognised("threads", "payload", threads.parse_threads(body, board="", author_key=_key("threads")))
    parsed = dcard.parse_dcard(body, board="", author_key=_key("dcard"))
    kind = "forums" if "forums" in parsed.flags else "list" if "listed" in parsed.flags else "payload"
    listed = _dcard_list(value) if kind == "list" else []
    known = kind != "payload" or parsed.posts or _holds(value, ("forumAlias", "postId", "forumList"))
    return Recognised("dcard" if known else None, kind if known else "unknown", parsed, listed)


def _dcard_list(value: Any) -> list[dict[str, Any]]:
    return [
        {
            "post_id": row.id,
            "board": row.forum_alias,
            "title": row.title,
            "excerpt": row.excerpt,
            "created_at": row.created_at.isoformat(),
            "comments": row.comment_count,
            "score": row.like_count,
        }
        for row in dcard.rows_of(value)
        if isinstance(row, dcard.PostRow) and row.listed
    ]


def _refusal(value: dict[str, Any]) -> Recognised | None:
    """What the sites' interfaces say where rows would stand; None when this is no such thing."""
    error, message = value.get("error"), str(value.get("message", ""))
    if value.get("require_login") is True:
        return Recognised("threads", "refusal", Parsed(Outcome.LOGIN_WALL, why=message or "a log-in is asked for"))
    if isinstance(error, dict) and "message" in error:
        code = error.get("code")
        outcome = Outcome.RATE_LIMITED if code in GRAPH_OFTEN else Outcome.BLOCKED
        outcome = Outcome.LOGIN_WALL if code in GRAPH_TOKEN else outcome
        return Recognised("threads", "refusal", Parsed(outcome, why=f"error {code}: {error['message']}"))
    if not message or {"id", "items", "data"} & value.keys():
        return None
    status = next(
        (number for name in ("statusCode", "status", "error") if isinstance(number := value.get(name), int)), 0
    )
    outcome = BY_STATUS.get(status, Outcome.SERVER_BUSY if 500 <= status < 600 else Outcome.PARSE_INCOMPLETE)
    if re.search(r"not found|不存在", message, re.IGNORECASE):
        outcome = Outcome.GONE
    known: Source | None = "dcard" if "error" in value or "statusCode" in value else None
    return Recognised(known, "error", Parsed(outcome, why=f"error {status}: {message}" if status else message))


def _poll(value: dict[str, Any]) -> Recognised:
    """PTT's answer to a page that waits for more: the pushes since, without their article."""
    address = PTT_ADDRESS.search(str(value.get("pollUrl", "")).replace("/poll/", "/bbs/"))
    board, article_id = (address[1], address[2]) if address else ("", "")
    fragment = f'<div id="main-content">{value["contentHtml"]}</div>'.encode()
    parsed = ptt.parse_article(fragment, board=board, article_id=article_id, author_key=_key("ptt"))
    parsed.posts = [post for post in parsed.posts if post.kind != "post"]
    parsed.flags = ["partial"]
    return Recognised("ptt", "poll", parsed)


def _har(entries: list[Any], path: Path) -> Recognised:
    """All pages and payloads of a browser's recording; one that does not parse speaks for the whole."""
    whole, listed, sources, read = Parsed(Outcome.OK), [], set(), 0
    for entry in entries:
        try:
            content, url = entry["response"]["content"], entry["request"]["url"]
            text = content.get("text") or ""
            body = base64.b64decode(text) if content.get("encoding") == "base64" else text.encode()
            wanted = re.search("html|json", content.get("mimeType", "")) and _site(url)
        except (KeyError, TypeError, AttributeError, ValueError):
            continue
        if not wanted or not body:
            continue
        found = recognise(body, path.with_name(Path(url.split("?", 1)[0]).name or "page"))
        if found.source is None:
            continue
        read += 1
        sources.add(found.source)
        listed += found.listed
        whole.posts += found.parsed.posts
        whole.flags = sorted({*whole.flags, *found.parsed.flags})
        if whole.usable and not found.parsed.usable:
            whole.outcome, whole.why = found.parsed.outcome, f"{url.split('?', 1)[0]}: {found.parsed.why}"
    if not read:
        whole = Parsed(Outcome.EMPTY_OR_FILTERED, why="no page or payload of the three sites in it")
    elif whole.usable:
        whole.why = f"{read} pages and payloads"
    return Recognised(sources.pop() if len(sources) == 1 else None, "har", whole, listed)


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
            posts += threads.posts_from_payload(load_json(line), "", _key("threads"))
    except MalformedError as error:
        return Recognised("threads", "ndjson", incomplete(f"{path.name}: {error}", posts))
    return Recognised("threads", "ndjson", Parsed(Outcome.OK, posts)) if posts else None
