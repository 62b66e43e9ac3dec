"""Dcard payloads: lists, posts, comments and pages with `__NEXT_DATA__`, in the key sets of 2016-2026.

Keys are left out, never null, when the site has nothing to say; what every year's rows share is required, and a
row without it is damage. An excerpt is never taken for a post's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from persona_dagster.records import Outcome, Post
from persona_dagster.sites.dcard import pages
from persona_dagster.sites.json_validation import Count, Moment, Name, Sent, depth_bounded, guarded, load_json, sent
from persona_dagster.sites.parser_results import AuthorKey, MalformedError, Parsed, decode, people_masker

ORIGIN = "https://www.dcard.tw"
TAIPEI = ZoneInfo("Asia/Taipei")
NEXT_DATA = re.compile(r'<script id="__NEXT_DATA__"[^>]*>(.*?)</script>', re.DOTALL)
ROW_ID = re.compile(r"[0-9]{1,12}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _row_id(value: object) -> str:
    if type(value) not in (int, str) or not ROW_ID.fullmatch(str(value)):
        raise ValueError("neither a number nor a UUID")
    return str(value)


RowId = Annotated[str, BeforeValidator(_row_id)]


class Entry(Sent):
    """What post and comment say of themselves and of who wrote them."""

    model_config = ConfigDict(alias_generator=to_camel)

    id: RowId
    created_at: Moment
    school: str | None = None
    department: str | None = None
    gender: str | None = None
    with_nickname: bool | None = None
    anonymous: bool | None = None
    anonymous_department: bool | None = None
    hidden: bool | None = None
    hidden_by_author: bool | None = None
    in_review: bool | None = None
    deleted_at: str | None = None

    @property
    def author(self) -> str | None:
        """Something that is the same for one person: the nickname's uid, else the school card where both are shown.

        Anonymous rows name nobody; a school alone holds thousands of people and is no author.
        """
        if self.with_nickname:
            return f"@{self.department}" if self.department else None
        unnamed = self.anonymous if self.anonymous_department is None else self.anonymous_department
        if not (self.school and self.department) or unnamed:
            return None
        return f"{self.school}|{self.department}|{self.gender or ''}"

    @property
    def flags(self) -> list[str]:
        said = {
            "hidden": self.hidden, "hidden_by_author": self.hidden_by_author, "in_review": self.in_review,
            "deleted": self.deleted_at, "official": self.gender == "D",
        }  # fmt: skip
        return [flag for flag, value in said.items() if value]


class PostRow(Entry):
    title: str
    excerpt: str
    updated_at: str
    comment_count: Count
    like_count: Count
    forum_alias: Name
    content: str = ""
    pinned: bool | None = None

    @property
    def listed(self) -> bool:
        """Named by a list, which shows an excerpt."""
        return "content" not in self.model_fields_set


class CommentRow(Entry):
    post_id: RowId
    parent_id: RowId | None = None
    floor: Count
    content: str | None = None
    like_count: Count | None = None

    @model_validator(mode="after")
    def _shown(self) -> Self:
        if not self.hidden and not {"content", "like_count"} <= self.model_fields_set:
            raise ValueError("it is not hidden, and has no text")
        return self


class Envelope(Sent):
    """What a page of a list or of comments says of the next one."""

    model_config = ConfigDict(alias_generator=to_camel)

    next_key: str | None = None


@guarded
def parse_dcard(
    body: bytes, *, board: str, author_key: AuthorKey, first: bool = True, post_id: str | None = None
) -> Parsed:
    """Any Dcard payload: what it is shows in its keys. Lists name posts, and give no rows of their own.

    `first`: comments that do not begin at floor 1 have a gap; False for the later pages of them. `post_id`: of a page
    that the server rendered, which shows the post's text and not surely its comments.
    """
    text = decode(body)
    if text.isascii() and "\\u" not in text and "????" in text:
        raise MalformedError("the characters were lost in another encoding")
    if post_id and text.lstrip().startswith("<") and "__NEXT_DATA__" not in text:
        return Parsed(Outcome.OK, [pages.post_of(text, post_id, board)], ["comments_unread"])
    return _parse(page_data(text) if text.lstrip().startswith("<") else load_json(text), board, author_key, first)


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
    rows = rows_of(value)
    if not rows and isinstance(value, list) and any(isinstance(item, dict) and _is_forum(item) for item in value):
        return Parsed(Outcome.OK, flags=["forums"])
    if not rows:
        return Parsed(Outcome.EMPTY_OR_FILTERED, why="no rows: nothing there, or the site is refusing")
    posts: list[Post] = []
    flags: list[str] = []
    if len({row.id for row in rows}) != len(rows):
        raise MalformedError("a row is there twice")
    for row in rows:
        if isinstance(row, CommentRow):
            posts.append(_comment(row, board, author_key))
        elif row.listed:
            flags.append("listed")
        else:
            posts.append(_post(row, board, author_key))
    if any(post.floor is not None for post in posts):
        flags.append("count_unstated")  # comments do not say how many they are; their post does
    if _has_gaps(posts, first):
        flags.append("floor_gaps")  # deleted comments leave their floor empty
    return Parsed(Outcome.OK, posts, sorted(set(flags)))


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list or of comments, as the crawl asks for them."""

    rows: list[PostRow | CommentRow]
    next_key: str | None  # None: the page does not say, or it is the last one
    last: bool  # it says that nothing follows

    @property
    def listed(self) -> list[tuple[str, datetime]]:
        """Ids and times of a list's posts in its order, without those that are pinned above it."""
        return [(row.id, row.created_at) for row in self.rows if isinstance(row, PostRow) and not row.pinned]

    @property
    def floors(self) -> list[int]:
        return [row.floor for row in self.rows if isinstance(row, CommentRow)]

    @property
    def comments_stated(self) -> int:
        """How many comments a page's posts say they have."""
        return sum(row.comment_count for row in self.rows if isinstance(row, PostRow))


def page_of(body: bytes) -> Page:
    """Raises `MalformedError`."""
    value = load_json(decode(body))
    rows = rows_of(value)
    more = sent(Envelope, value, "a page") if isinstance(value, dict) else Envelope()
    return Page(rows, more.next_key, isinstance(value, dict) and value.get("nextKey", "") is None)


def _has_gaps(posts: list[Post], first: bool) -> bool:
    floors: dict[str | None, list[int]] = {}
    for post in posts:
        if post.floor is not None:
            floors.setdefault(post.thread_id, []).append(post.floor)
    return any(max(of) - (0 if first else min(of) - 1) > len(of) for of in floors.values())


def rows_of(value: Any) -> list[PostRow | CommentRow]:
    """Post and comment rows, whatever envelope the year used. Raises `MalformedError`."""
    with depth_bounded():
        return list(_rows(value))


def _rows(value: Any) -> Iterator[PostRow | CommentRow]:
    """Bare lists, `items`, widgets, whole crawls."""
    if isinstance(value, list):
        for item in value:
            yield from _rows(item)
    elif isinstance(value, dict):
        if "forumAlias" in value and "title" in value:
            yield sent(PostRow, value, f"post {value.get('id')!r}"[:60])
        elif "floor" in value and "postId" in value:
            yield sent(CommentRow, value, f"comment {value.get('id')!r}"[:60])
        elif _is_forum(value):
            return
        elif ("content" in value) != ("comments" in value):
            raise MalformedError("half of a crawled post")
        elif not (nested := [value[key] for key in ENVELOPES if key in value]):
            raise MalformedError(f"a payload of unknown shape, with {', '.join(sorted(value)[:6]) or 'no keys'}")
        else:
            for item in nested:
                yield from _rows(item)
    else:
        raise MalformedError(f"a {type(value).__name__} where rows belong")


# Newest first: globalPaging's widgets, v3's items, and the crawl of 2016 that put a post under `content`.
ENVELOPES = ("widgets", "forumList", "items", "post", "posts", "content", "comments")


def _is_forum(value: dict[str, Any]) -> bool:
    return {"alias", "name", "description"} <= value.keys()


def _post(row: PostRow, board: str, author_key: AuthorKey) -> Post:
    handles = [row.department] if row.with_nickname and row.department else []
    return Post(
        source="dcard",
        board=board or row.forum_alias,
        kind="post",
        post_id=row.id,
        url=f"{ORIGIN}/f/{row.forum_alias}/p/{row.id}",
        text_raw=people_masker(handles)(row.content).strip(),
        thread_id=row.id,
        author_key=author_key(row.author) if row.author else None,
        created_at=row.created_at,
        title=row.title.strip(),
        score=row.like_count,
        flags=row.flags,
    )


def _comment(row: CommentRow, board: str, author_key: AuthorKey) -> Post:
    """`B3 text 11月2日 09:12`, as the page shows it. A hidden comment keeps its floor and has no text."""
    content, flags = row.content or "", row.flags
    if not content and "hidden" not in flags:
        flags.append("no_text")
    parent = row.parent_id or row.post_id
    return Post(
        source="dcard",
        board=board,
        kind="comment" if parent == row.post_id else "reply",
        post_id=row.id,
        url=f"{ORIGIN}/f/{board}/p/{row.post_id}#comment-{row.id}",
        text_raw=f"B{row.floor} {content.strip()} {shown(row.created_at)}" if content else "",
        text=content.strip(),
        parent_id=parent,
        thread_id=row.post_id,
        author_key=author_key(row.author) if row.author else None,
        created_at=row.created_at,
        score=row.like_count,
        floor=row.floor,
        flags=flags,
    )


def shown(created: datetime) -> str:
    """A date as the sites show it to a reader in Taipei."""
    local = created.astimezone(TAIPEI)
    return f"{local.month}月{local.day}日 {local:%H:%M}"
