"""Cuts pushes out of an archived PTT page, in the shape that the site itself leaves where a push was deleted.

The line that stands there instead is as wide as a push, so the page still proves its length, keeps its floors, and
names the push by the digest that its post_id holds, so that a reply below it keeps its own name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

from persona_dagster.sites.parser_results import AuthorKey, MalformedError, decode
from persona_dagster.sites.ptt.article import boundary, lines_of, parse_article
from persona_dagster.sites.ptt.markup import PushLine, scan_article
from persona_dagster.sites.ptt.size import PUSH_BYTES, width

PUSH = re.compile(r'<div class="push">.*?</div>', re.DOTALL)


def cut(
    body: bytes,
    *,
    board: str,
    article_id: str,
    author_key: AuthorKey,
    ids: Collection[str],
    fetched_at: datetime | None = None,
) -> bytes | None:
    """The page without the pushes of these post_ids, and without the ids of those who wrote them.

    None where the page's pushes cannot be told apart: it cannot be cut then.
    """
    try:
        source = decode(body)
        article = scan_article(source)
    except MalformedError:
        return None
    found = [*PUSH.finditer(source)]
    pushes = [item for item in article.items if isinstance(item, PushLine)]
    if len(found) != len(pushes):
        return None
    posts = parse_article(body, board=board, article_id=article_id, author_key=author_key, fetched_at=fetched_at).posts
    lines = lines_of(article)
    pasted = sum(line.push is not None for line in lines[: boundary(lines, article_id)])
    comments = [post for post in posts if post.kind == "comment"]
    if pasted + len(comments) != len(pushes):
        return None
    parts, at, people = [], 0, set()
    for post, block, push in zip(comments, found[pasted:], pushes[pasted:], strict=True):
        if post.post_id in ids:
            parts += [source[at : block.start()], _placeholder(post.post_id)]
            at = block.end()
            people.add(push.user)
    return _unnamed("".join((*parts, source[at:])), people - {""}).encode()


def _placeholder(post_id: str) -> str:
    line = f"(forgotten 刪除 {post_id.rpartition('#')[2].replace('.', '_')} 的推文)"
    return line + " " * (PUSH_BYTES - 1 - width(line)) + "\n"


def _unnamed(source: str, people: Collection[str]) -> str:
    """Others' mentions of these ids made unreadable: as wide as before, and still a word like an id, so that the push
    which names one keeps its own name."""
    for name in people:
        source = re.sub(
            rf"(?<![A-Za-z0-9_.]){re.escape(name)}(?![A-Za-z0-9_])",
            lambda found: "x" * len(found[0]),
            source,
        )
    return source
