"""Dcard payloads: lists, posts, comments and pages with `__NEXT_DATA__`, in the key sets of 2016-2026.

Keys are left out, never null, when the site has nothing to say; what every year's rows share is required, and a
row without it is damage. An excerpt is never taken for a post's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from persona_dagster.records import Outcome, Post
from persona_dagster.sites.dcard import pages
from persona_dagster.sites.parsed import AuthorKey, MalformedError, Parsed, decode, incomplete, people_masker

ORIGIN = "https://www.dcard.tw"
TAIPEI = ZoneInfo("Asia/Taipei")
NEXT_DATA = re.compile(r'<script id="__NEXT_DATA__"[^>]*>(.*?)</script>', re.DOTALL)
POST_KEYS = frozenset(["id", "title", "excerpt", "createdAt", "updatedAt", "commentCount", "likeCount", "forumAlias"])
COMMENT_KEYS = frozenset(["id", "postId", "createdAt", "floor"])
MOST_DIGITS = 19  # of a number, as a database keeps it
SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
ROW_ID = re.compile(r"\d{1,12}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HIDDEN_FLAGS = {"hidden": "hidden", "hiddenByAuthor": "hidden_by_author", "inReview": "in_review"}


def load_json(text: str) -> Any:
    """JSON in which no object names a key twice: that is how two spliced rows look."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise MalformedError("an object names a key twice")
        return value

    def refuse(constant: str) -> None:
        raise MalformedError(f"{constant} is no JSON")

    def whole_number(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise MalformedError(f"a number of {len(digits)} digits")
        return int(digits)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"no JSON: {error}"[:300]) from error
    if SURROGATE.search(text) and (found := _lone_surrogate(value)):
        raise MalformedError(f"half a character (\\u{ord(found):04x}) in a text")
    return value


def _lone_surrogate(value: Any) -> str | None:
    """The first half of a pair that stands alone: no UTF-8 can hold it, and so no table."""
    if isinstance(value, str):
        return next((character for character in value if "\ud800" <= character <= "\udfff"), None)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for item in inner if (found := _lone_surrogate(item))), None)


def parse_dcard(
    body: bytes, *, board: str, author_key: AuthorKey, first: bool = True, post_id: str | None = None
) -> Parsed:
    """Any Dcard payload: what it is shows in its keys. Lists name posts, and give no rows of their own.

    `first`: comments that do not begin at floor 1 have a gap; False for the later pages of them. `post_id`: of a page
    that the server rendered, which shows the post's text and not surely its comments.
    """
    try:
        text = decode(body)
        if text.isascii() and "\\u" not in text and "????" in text:
            raise MalformedError("the characters were lost in another encoding")
        if post_id and text.lstrip().startswith("<") and "__NEXT_DATA__" not in text:
            return Parsed(Outcome.OK, [pages.post_of(text, post_id, board)], ["comments_unread"])
        return _parse(page_data(text) if text.lstrip().startswith("<") else load_json(text), board, author_key, first)
    except MalformedError as error:
        return incomplete(str(error))
    except RecursionError:
        return incomplete("nested too deep")


def page_data(source: str) -> Any:
    """The state that a rendered page carries."""
    found = NEXT_DATA.findall(source)
    if len(found) != 1 or not source.rstrip().endswith("</html>"):
        raise MalformedError(f"{len(found)} __NEXT_DATA__ in a page that {'ends' if '</html>' in source else 'is cut'}")
    state = load_json(found[0])
    try:
        data = state["props"]["initialState"]
        return [*data["post"]["data"].values(), *data.get("comment", {}).get("data", {}).values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise MalformedError(f"__NEXT_DATA__ without {error}") from error


def _parse(value: Any, board: str, author_key: AuthorKey, first: bool) -> Parsed:
    rows = list(rows_of(value))
    if not rows and isinstance(value, list) and any(isinstance(item, dict) and _is_forum(item) for item in value):
        return Parsed(Outcome.OK, flags=["forums"])
    if not rows:
        return Parsed(Outcome.EMPTY_OR_FILTERED, why="no rows: nothing there, or the site is refusing")
    posts: list[Post] = []
    flags: list[str] = []
    names = [str(row["id"]) for row in rows]
    if len(set(names)) != len(names):
        raise MalformedError("a row is there twice")
    for row in rows:
        if "floor" in row:
            posts.append(_comment(row, board, author_key))
        elif "content" in row:
            posts.append(_post(row, board, author_key))
        else:
            flags.append("listed")
    if any(post.floor is not None for post in posts):
        flags.append("count_unstated")  # comments do not say how many they are; their post does
    if _has_gaps(posts, first):
        flags.append("floor_gaps")  # deleted comments leave their floor empty
    return Parsed(Outcome.OK, posts, sorted(set(flags)))


def list_rows(value: Any) -> list[tuple[str, datetime]]:
    """Ids and times of a list's posts in its order, without those that are pinned above it."""
    rows = [row for row in rows_of(value) if "floor" not in row and not row.get("pinned")]
    return [(str(row["id"]), moment(row["createdAt"])) for row in rows]


def _has_gaps(posts: list[Post], first: bool) -> bool:
    floors: dict[str | None, list[int]] = {}
    for post in posts:
        if post.floor is not None:
            floors.setdefault(post.thread_id, []).append(post.floor)
    return any(max(of) - (0 if first else min(of) - 1) > len(of) for of in floors.values())


def rows_of(value: Any) -> Iterator[dict[str, Any]]:
    """Post and comment rows, whatever envelope the year used: bare lists, `items`, widgets, whole crawls."""
    if isinstance(value, list):
        for item in value:
            yield from rows_of(item)
    elif isinstance(value, dict):
        if "forumAlias" in value and "title" in value:
            yield _checked(value, POST_KEYS, "post")
        elif "floor" in value and "postId" in value:
            yield _checked(value, COMMENT_KEYS, "comment")
        elif _is_forum(value):
            return
        elif ("content" in value) != ("comments" in value):
            raise MalformedError("half of a crawled post")
        elif not (nested := [value[key] for key in ENVELOPES if key in value]):
            raise MalformedError(f"a payload of unknown shape, with {', '.join(sorted(value)[:6]) or 'no keys'}")
        else:
            for item in nested:
                yield from rows_of(item)
    else:
        raise MalformedError(f"a {type(value).__name__} where rows belong")


# Newest first: globalPaging's widgets, v3's items, and the crawl of 2016 that put a post under `content`.
ENVELOPES = ("widgets", "forumList", "items", "post", "posts", "content", "comments")


def _is_forum(value: dict[str, Any]) -> bool:
    return {"alias", "name", "description"} <= value.keys()


def _checked(row: dict[str, Any], required: frozenset[str], what: str) -> dict[str, Any]:
    if missing := required - row.keys():
        raise MalformedError(f"a {what} {row.get('id')!r} without {', '.join(sorted(missing))}")
    if what == "comment" and not row.get("hidden") and not {"content", "likeCount"} <= row.keys():
        raise MalformedError(f"comment {row['id']!r} is not hidden, and has no text")
    if not ROW_ID.fullmatch(str(row["id"])):
        raise MalformedError(f"a {what} with the id {str(row['id'])[:50]!r}")
    numbers = [row.get(key) for key in ("commentCount", "likeCount", "floor") if key in row]
    if not all(type(number) is int and abs(number) < 2**62 for number in numbers):
        raise MalformedError(f"a {what} {row.get('id')!r} with {numbers} for counts")
    return row


def moment(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise MalformedError(f"{text!r} is no time") from error


def author_of(row: dict[str, Any]) -> str | None:
    """Something that is the same for one person: the nickname's uid, else the school card where both are shown.

    Anonymous rows name nobody; a school alone holds thousands of people and is no author.
    """
    school, department = row.get("school"), row.get("department")
    if row.get("withNickname"):
        return f"@{department}" if department else None
    if school and department and not row.get("anonymousDepartment", row.get("anonymous")):
        return f"{school}|{department}|{row.get('gender', '')}"
    return None


def _handle(row: dict[str, Any]) -> list[str]:
    return [str(row["department"])] if row.get("withNickname") and row.get("department") else []


def _flags(row: dict[str, Any]) -> list[str]:
    flags = [flag for key, flag in HIDDEN_FLAGS.items() if row.get(key)]
    if row.get("deletedAt"):
        flags.append("deleted")
    if row.get("gender") == "D":
        flags.append("official")
    return flags


def _post(row: dict[str, Any], board: str, author_key: AuthorKey) -> Post:
    content, title, author = row["content"], row["title"], author_of(row)
    if not isinstance(content, str) or not isinstance(title, str):
        raise MalformedError(f"post {row['id']} whose text is no text")
    mask = people_masker(_handle(row))
    return Post(
        source="dcard",
        board=board or row["forumAlias"],
        kind="post",
        post_id=str(row["id"]),
        url=f"{ORIGIN}/f/{row['forumAlias']}/p/{row['id']}",
        text_raw=mask(content).strip(),
        thread_id=str(row["id"]),
        author_key=author_key(author) if author else None,
        created_at=moment(row["createdAt"]),
        title=title.strip(),
        score=row["likeCount"],
        flags=_flags(row),
    )


def _comment(row: dict[str, Any], board: str, author_key: AuthorKey) -> Post:
    """`B3 text 11月2日 09:12`, as the page shows it. A hidden comment keeps its floor and has no text."""
    content, author = row.get("content") or "", author_of(row)
    flags = _flags(row)
    if not isinstance(content, str):
        raise MalformedError(f"comment {row['id']} whose text is no text")
    if not content and "hidden" not in flags:
        flags.append("no_text")
    created = moment(row["createdAt"])
    parent = row.get("parentId") or row["postId"]
    return Post(
        source="dcard",
        board=board,
        kind="comment" if parent == row["postId"] else "reply",
        post_id=str(row["id"]),
        url=f"{ORIGIN}/f/{board}/p/{row['postId']}#comment-{row['id']}",
        text_raw=f"B{row['floor']} {content.strip()} {shown(created)}" if content else "",
        parent_id=str(parent),
        thread_id=str(row["postId"]),
        author_key=author_key(author) if author else None,
        created_at=created,
        score=row.get("likeCount"),
        floor=row["floor"],
        flags=flags,
    )


def shown(created: datetime) -> str:
    """A date as the sites show it to a reader in Taipei."""
    local = created.astimezone(TAIPEI)
    return f"{local.month}月{local.day}日 {local:%H:%M}"
