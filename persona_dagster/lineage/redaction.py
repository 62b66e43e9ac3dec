"""Captures without somebody's words: comments cut out by the site's own rules, quotes blanked where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import partial

from persona_dagster.corpus.parsing import parse_capture
from persona_dagster.digest import author_key, sha256
from persona_dagster.lineage import tombstones
from persona_dagster.lineage.byte_search import covered, occurring
from persona_dagster.records import Capture, DocId
from persona_dagster.settings import Settings
from persona_dagster.sites.dcard import redaction as dcard
from persona_dagster.sites.ptt import redaction as ptt
from persona_dagster.sites.threads import redaction as threads

# What is left of a blanked text: as wide on a terminal, as many characters in JSON.
TOKEN = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|&#?\w+;|[^\x00-\x7f]|[A-Za-z0-9]", re.DOTALL)


def cut(capture: Capture, ids: Collection[str], settings: Settings) -> bytes | None:
    """The capture's bytes without these comments; None where they cannot be taken out of it."""
    match capture.source:
        case "ptt":
            return ptt.cut(
                capture.body,
                board=capture.board,
                article_id=capture.key,
                author_key=partial(author_key, settings.author_secret, "ptt"),
                ids=ids,
                fetched_at=capture.fetched_at,
            )
        case "dcard":
            return dcard.cut(capture.body, ids=ids)
        case "threads":
            return threads.cut(capture.body, ids=ids)
    return None


def blanked(body: bytes, needles: Collection[bytes]) -> bytes:
    """The bytes with every run of needles made unreadable, and as long as it was to whoever measures pages."""
    parts, done = [], 0
    for start, end in covered(body, occurring(body, needles)):
        text = body[start:end].decode("utf-8", "surrogateescape")
        blank = TOKEN.sub(lambda found: _blank(found[0]), text)
        parts += [body[done:start], blank.encode("utf-8", "surrogateescape")]
        done = end
    return b"".join([*parts, body[done:]])


def _blank(token: str) -> str:
    if token.startswith("\\u"):
        return r"\u25a0"
    if len(token) > 1:
        return token
    return "■" if not token.isascii() else "x"


def scrubber(settings: Settings) -> Callable[[Capture], Capture]:
    """What is done to every page before it is archived: comments of forgotten people are cut out again."""

    def scrub(capture: Capture) -> Capture:
        stones = tombstones.read(settings.home)
        if not stones or capture.source not in ("ptt", "dcard", "threads"):
            return capture
        docs = {doc for stone in stones for doc in stone.docs}
        authors = {key for stone in stones for key in stone.authors}
        key_of = partial(author_key, settings.author_secret, capture.source)
        ids = {
            post.post_id
            for post in parse_capture(capture, key_of).posts
            if post.kind != "post"
            and (f"{post.source}:{post.board}:{post.post_id}" in docs or post.author_key in authors)
        }
        if capture.source == "threads":  # whatever board it was read for, and posts that are no rows of this page
            codes = {named.post_id for named in map(DocId.read, docs) if named.source == "threads"} - {capture.key}
            ids |= {
                code
                for code, account in threads.accounts(capture.body).items()
                if code in codes or (account and key_of(account) in authors)
            }
        body = cut(capture, ids, settings) if ids else None
        if body is None:
            return capture  # its rows are dropped by their tombstones when they are parsed
        return Capture(
            **{name: getattr(capture, name) for name in Capture.__dataclass_fields__ if name not in ("body", "sha256")},
            body=body,
            sha256=sha256(body),
        )

    return scrub
