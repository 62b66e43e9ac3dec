"""What a parser hands back, and the placeholders that stand for people in `text_raw`.

A parser never raises on bytes from a site: it says `ok` with every post, or another outcome, why, and what it
could read. Only `ok` may be taken for the whole page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from persona_dagster.records import Capture, Outcome, Post

AuthorKey = Callable[[str], str]

USER, NICK, ADDRESS = "<user>", "<nick>", "<ip>"
# Flags of pages that may be a part only: the site cut them, shows no more, or gives nothing to check them against.
PARTIAL = frozenset(
    [
        *("truncated_by_site", "length_unstated", "length_unproven", "odd_push"),
        *("floor_gaps", "more_replies", "partial", "listed", "count_unstated", "comments_unread"),
    ]
)
MAX_BODY = 8 << 20  # decoded bytes that any parser looks at


@dataclass(slots=True)
class Parsed:
    outcome: Outcome
    posts: list[Post] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # of the page; a post's own are in `Post.flags`
    why: str = ""

    @property
    def usable(self) -> bool:
        """Everything that was there to read was read."""
        return self.outcome is Outcome.OK

    @property
    def complete(self) -> bool:
        """Provably the whole thing: read without a fault, and nothing says that more exists or could be missing."""
        return self.usable and not PARTIAL & set(self.flags)


class MalformedError(ValueError):
    """The bytes are not what the site sends: caught at the parser's edge, where it becomes `parse_incomplete`."""


def incomplete(why: str, posts: list[Post] | None = None, flags: list[str] | None = None) -> Parsed:
    return Parsed(Outcome.PARSE_INCOMPLETE, posts or [], flags or [], why)


def decode(body: bytes) -> str:
    """UTF-8 without a byte-order mark; anything else is malformed (all three sites serve UTF-8)."""
    if len(body) > MAX_BODY:
        raise MalformedError(f"{len(body)} bytes, more than the {MAX_BODY} that a page may have")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedError(f"no UTF-8 at byte {error.start}") from error
    if "\x00" in text:
        raise MalformedError(f"a NUL character at {text.index(chr(0))}")
    return text


def stamp(posts: Iterable[Post], capture: Capture) -> None:
    for post in posts:
        post.fetched_at, post.snapshot = capture.fetched_at, capture.sha256


def people_masker(names: Iterable[str]) -> Callable[[str], str]:
    """Replaces the page's own user ids in running text by `<user>`.

    Only the parser knows which words are ids. Names under five characters without a digit are left: they are
    too often plain words (`love`, `cat`).
    """
    known = {name for name in names if len(name) >= 5 or (len(name) >= 3 and any(c.isdigit() for c in name))}
    if not known:
        return lambda text: text
    # One pass over ASCII words and a set look-up: an alternation of 800 ids costs 30 times more.
    return lambda text: re.sub(
        r"[A-Za-z0-9_.]{3,30}", lambda word: USER if word[0].strip(".") in known else word[0], text
    )
