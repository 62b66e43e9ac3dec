"""What a reader's own browser received from the three sites: told apart by address, read by the sites' parsers.

One way for answers that are captured as they pass (`crawl/browser_capture.py`), recorded as HAR, saved as files, or
exported post by post (Zeeschuimer). Only what holds posts is kept, and none of the reader's session.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, Source
from persona_dagster.sites.dcard import pages
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.json_validation import depth_bounded, guarded
from persona_dagster.sites.parser_results import AuthorKey, MalformedError, Parsed, decode, incomplete
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.threads import payloads as threads

SAVED, ITEM = "saved", "item"  # kinds of captures: a page or payload; one post of Threads by itself
HOSTS: dict[str, Source] = {
    "www.ptt.cc": "ptt",
    "www.dcard.tw": "dcard",
    "www.threads.com": "threads",
    "www.threads.net": "threads",
    "graph.threads.net": "threads",
}
OF_THE_FILE = datetime.fromtimestamp(0, UTC)  # stands for the time of the file that it came in
MIME = re.compile(r"html|json|javascript")  # Threads answers its own calls as text/javascript
PTT_ARTICLE = re.compile(r"/bbs/([^/]+)/([MG]\.\d+\.A(?:\.[0-9A-F]+)?)\.html")
THREADS_POST = re.compile(r"/post/([A-Za-z0-9_-]+)")
USER = re.compile(r"/@[^/]+/")
SCRIPTS = re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Browsed:
    """A part of an answer that holds posts: the bytes to keep, and the address without its query, which may carry a
    session."""

    source: Source
    url: str
    body: bytes


def browsed(url: str, mime: str, body: bytes) -> list[Browsed]:
    """What is kept of one answer; nothing for one of another host, or without posts."""
    plain = url.split("?", 1)[0].split("#", 1)[0]
    source = HOSTS.get(urlsplit(plain).hostname or "")
    if source is None or not body or not MIME.search(mime):
        return []
    plain = USER.sub("/", plain) if source == "threads" else plain  # an address that names nobody
    kept = [body]
    try:
        if source == "threads":
            kept = [_chains(payload) for payload in threads.payloads_of(decode(body))]
        elif source == "dcard" and (text := decode(body)).lstrip().startswith("<") and not dcard.NEXT_DATA.search(text):
            kept = [SCRIPTS.sub("", text).encode()]
    except MalformedError:
        return []
    return [
        Browsed(source, plain, one) for one in kept if parse_browsed(source, plain, one, board="", author_key=str).posts
    ]


def _chains(payload: object) -> bytes:
    """The posts of a payload in their chains: the rest of it tells of the reader who is logged in."""
    with depth_bounded():
        rows = [{"thread_items": [{"post": post} for post in chain]} for chain in threads.chains(payload)]
        more = threads.has_more(payload)
    return json.dumps({"threads": rows, "has_next_page": more}, ensure_ascii=False).encode()


def capture_of(  # noqa: PLR0917 - a capture's own fields, in their order
    source: Source, board: str, kind: str, key: str, url: str, body: bytes, at: datetime = OF_THE_FILE
) -> Capture:
    return Capture(
        source=source, board=board, kind=kind, key=key, url=url, fetched_at=at, status=200, outcome=Outcome.OK,
        headers={}, body=body, sha256=sha256(body),
    )  # fmt: skip


def parse_capture(capture: Capture, author_key: AuthorKey) -> Parsed:
    """The posts of a capture of the kinds `SAVED` and `ITEM`."""
    url, body = capture.url, capture.body
    if capture.kind == ITEM:  # its address is the page on which it was seen
        url, body = "", b'{"thread_items": [{"post": %s}]}' % body
    # What was imported lies in one partition, whatever its boards: a payload that names its own is believed.
    board = "" if capture.board == IMPORT_BOARD else capture.board
    parsed = parse_browsed(capture.source, url, body, board=board, author_key=author_key, at=capture.fetched_at)
    for post in parsed.posts:
        post.board = post.board or capture.board
    return parsed


@guarded
def parse_browsed(
    source: Source, url: str, body: bytes, *, board: str, author_key: AuthorKey, at: datetime | None = None
) -> Parsed:
    """The posts of a page or payload that was had from `url`."""
    path = urlsplit(url).path
    if source == "ptt":
        if not (article := PTT_ARTICLE.search(path)):
            return incomplete("a PTT page that does not say which article it is")
        return ptt.parse_article(body, board=article[1], article_id=article[2], author_key=author_key, fetched_at=at)
    if source == "dcard":
        link = pages.POST_LINK.match(path)
        forum, post_id = (link[1], link[2]) if link else (board, None)
        parsed = dcard.parse_dcard(body, board=forum, author_key=author_key, post_id=post_id)
        for post in parsed.posts:
            if link and "rendered" in post.flags:
                post.url = url
        return parsed
    code = THREADS_POST.search(path) if body.lstrip().startswith(b"<") else None
    return threads.parse_threads(body, board=board, author_key=author_key, code=code[1] if code else None)
