"""Threads: pages with `data-sjs` JSON, relay payloads, API answers → posts and replies.

Posts are found by walking for objects with `pk` and `code`, never by path: paths change with every release. Posts
under `relatedPosts` are of other threads and are dropped; a quoted post is kept as the quote of the one that quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field

from persona_dagster.records import Outcome, Post
from persona_dagster.sites.dcard.payloads import shown
from persona_dagster.sites.json_validation import (
    Count,
    Digits,
    Moment,
    Name,
    Seconds,
    Sent,
    depth_bounded,
    guarded,
    load_json,
    sent,
)
from persona_dagster.sites.parser_results import USER, AuthorKey, MalformedError, Parsed, decode, incomplete

ORIGIN = "https://www.threads.com"
SCRIPT = re.compile(r'<script\b([^>]*\btype="application/json"[^>]*)>(.*?)</script>', re.DOTALL)
LENGTH = re.compile(r'data-content-len="(\d+)"')
MARKERS = ("thread_items", "searchResults")  # of scripts that hold posts; a page has 43 others
UNRELATED = frozenset(["relatedPosts", "related_posts", "suggested_users"])
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LOGIN_PAGE = re.compile(r"<title>[^<]*(?:Log in|登入)[^<]*</title>")
LOGIN_WALL = re.compile(r"Log in to see more replies|登入即可查看更多回覆|登入以查看更多|\"require_login\":\s*true")
PERMALINK = re.compile(r"https://(?:www\.)?threads\.(?:com|net)/@[^/]+/post/([A-Za-z0-9_-]+)/?")
MENTION = re.compile(r"(?<![\w@])@[A-Za-z0-9_.]{2,30}")


Pk = Annotated[int, Field(ge=0, lt=2**64)]


class User(Sent):
    username: Name


class Caption(Sent):
    text: str


class Fragment(Sent):
    fragment_type: str | None = None
    plaintext: str | None = None


class Fragments(Sent):
    fragments: list[Fragment | None] | None = None


class Snippet(Sent):
    snippet_text: str | None = None
    text: str | None = None


class Quoted(Sent):
    caption: Caption | None = None


class Share(Sent):
    quoted_post: Quoted | None = None


class RepliedAuthor(Sent):
    username: str | None = None


class AppInfo(Sent):
    is_reply: bool | None = None
    reply_to_author: RepliedAuthor | None = None
    text_fragments: Fragments | None = None
    snippet_attachment_info: Snippet | None = None
    share_info: Share | None = None


class PageRow(Sent):
    """A post as pages and relay payloads have it."""

    pk: Digits | Pk
    code: Name
    id: str | None = None
    taken_at: Seconds
    user: User
    caption: Caption | None = None
    like_count: Count | None = None
    like_and_view_counts_disabled: bool | None = None
    text_post_app_info: AppInfo | None = None

    @property
    def info(self) -> AppInfo:
        return self.text_post_app_info or AppInfo()

    @property
    def answers(self) -> str | None:
        """The account that it says it answers."""
        return self.info.reply_to_author.username if self.info.reply_to_author else None


class ApiId(Sent):
    id: Digits


class ApiRow(Sent):
    """A post as the official API has it; text and username only where the medium has them."""

    id: Digits
    permalink: str
    timestamp: Moment
    text: str | None = None
    username: str | None = None
    is_reply: bool | None = None
    replied_to: ApiId | None = None
    root_post: ApiId | None = None


class Cursors(Sent):
    after: str | None = None


class Paging(Sent):
    next: str | None = None
    cursors: Cursors | None = None


class ApiAnswer(Sent):
    """A page of the official API, its rows as they came."""

    data: list[dict[str, Any]]
    paging: Paging | None = None

    @property
    def after(self) -> str:
        """Where the next page begins; '' when this is the last one."""
        paging = self.paging
        return (paging.cursors.after or "") if paging and paging.next and paging.cursors else ""


class ApiFault(Sent):
    message: str


class ApiRefusal(Sent):
    error: ApiFault


def api_answer(body: bytes) -> ApiAnswer:
    """Raises `MalformedError`."""
    return sent(ApiAnswer, load_json(decode(body)), "an API answer")


def api_refusal(body: bytes) -> str:
    """Why the API says no. Raises `MalformedError`."""
    return sent(ApiRefusal, load_json(decode(body)), "an API answer").error.message


def code_of(pk: str) -> str:
    """The short code in a post's URL: its number in base 64."""
    number, code = int(pk), ""
    while number:
        number, digit = divmod(number, 64)
        code = ALPHABET[digit] + code
    return code


@guarded
def parse_threads(body: bytes, *, board: str, author_key: AuthorKey, code: str | None = None) -> Parsed:
    """A page, a relay payload or an API answer. With `code`, the post of that code must be among the rows."""
    text = decode(body)
    page, payloads = is_page(text), payloads_of(text)
    posts = posts_from_payloads(payloads, board, author_key)
    more = any(has_more(payload) for payload in payloads)
    wall = bool(LOGIN_WALL.search(text))
    if not posts:
        return _nothing(wall or (page and bool(LOGIN_PAGE.search(text))), page)
    if code and not any(post.post_id == code for post in posts):
        return incomplete(f"the post {code} that was asked for is not in the page", posts)
    flags = ["more_replies"] if more else []
    if wall:
        return Parsed(Outcome.LOGIN_WALL, posts, [*flags, "partial"], "more replies only after a log-in")
    return Parsed(Outcome.OK, posts, flags)


def _nothing(wall: bool, page: bool) -> Parsed:
    if wall:
        return Parsed(Outcome.LOGIN_WALL, why="a log-in is asked for, and no post shown")
    if page:
        return incomplete("a page without posts: a shell, or a block")
    return Parsed(Outcome.EMPTY_OR_FILTERED, why="no posts: none there, or filtered")


def is_page(text: str) -> bool:
    return text.lstrip().startswith("<")


def payloads_of(text: str) -> list[Any]:
    """The JSON of a page, or of an answer to its script, which may come in several lines."""
    if is_page(text):
        return page_payloads(text)
    lines = text.strip().splitlines()
    several = len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines)
    return [load_json(line) for line in lines] if several else [load_json(text)]


def page_payloads(source: str) -> list[Any]:
    """The JSON of every script that holds posts, each as long as the page says it is."""
    if not source.rstrip().endswith("</html>"):
        raise MalformedError("the page does not end with </html>")
    payloads = []
    for attributes, content in SCRIPT.findall(source):
        stated = LENGTH.search(attributes)
        if not any(marker in content for marker in MARKERS):
            continue
        if "<script" in content:
            raise MalformedError("a script inside a script")
        if stated and int(stated[1]) not in (len(content), len(content.encode())):
            raise MalformedError(f"a script of {len(content)} characters that should have {stated[1]}")
        payloads.append(load_json(content))
    if not payloads and source.count('"thread_items"'):
        raise MalformedError("posts outside any JSON script")
    return payloads


def named(body: bytes) -> dict[str, str]:
    """Account by code, of all posts that a page shows; none for a page that cannot be read."""
    try:
        with depth_bounded():
            rows = [raw for payload in payloads_of(decode(body)) for chain in chains(payload) for raw in chain]
            return {
                row.code: row.user.username for row in (sent(PageRow, raw, "a post") for raw in rows if is_shown(raw))
            }
    except MalformedError:
        return {}


def posts_from_payloads(payloads: list[Any], board: str, author_key: AuthorKey) -> list[Post]:
    """Posts of all payloads, each once, in page order, replies with the post that they answer.

    A chain's first post answers the post that the page is of: the last of the page's first chain, before which its
    own parents stand. `reply_to_author` names whom a reply answers, and decides where a chain holds several.
    """
    posts: dict[str, Post] = {}
    for payload in payloads:
        subject: list[tuple[Post, str]] = []
        for chain in chains(payload):
            above = list(subject)
            for raw in chain:
                if "permalink" in raw:
                    row, post = None, _api_post(raw, board, author_key)
                elif is_shown(raw):
                    row = sent(PageRow, raw, f"post {raw.get('code')!r}"[:60])
                    post = _page_post(row, board, author_key)
                else:
                    continue
                if row and post.kind == "reply":
                    post.parent_id = _answered(row, above)
                above.append((post, row.user.username if row else ""))
                posts.setdefault(post.post_id, post)
            subject = subject or above
    rows = list(posts.values())
    _attach(rows)
    return rows


def _answered(row: PageRow, above: list[tuple[Post, str]]) -> str | None:
    """The last post above whose author the reply names; the last one where it names nobody; none where that author's
    post is not shown."""
    return next((post.post_id for post, user in reversed(above) if row.answers in (None, user)), None)


def posts_from_payload(payload: Any, board: str, author_key: AuthorKey) -> list[Post]:
    """For importers: the posts of one decoded JSON value. Raises `MalformedError` on damaged rows."""
    with depth_bounded():
        return posts_from_payloads([payload], board, author_key)


def _attach(rows: list[Post]) -> None:
    """A reply's thread is that of the topmost post that it leads up to."""
    by_id = {post.post_id: post for post in rows}
    for post in rows:
        if post.kind == "post":
            post.thread_id = post.post_id
            continue
        top = post
        for _ in rows:  # walks up; bounded, should rows ever name each other in a circle
            if top.parent_id is None or top.parent_id not in by_id:
                break
            top = by_id[top.parent_id]
        post.thread_id = post.thread_id or top.post_id


def chains(value: Any, inside: bool = False) -> Iterator[list[dict[str, Any]]]:
    """Every `thread_items` list as its posts; lone posts elsewhere as chains of one."""
    if isinstance(value, dict):
        if isinstance(items := value.get("thread_items"), list):
            if not all(isinstance(item, dict) and isinstance(item.get("post", 0), dict | None) for item in items):
                raise MalformedError("a thread item without its post")
            yield [item["post"] for item in items if item["post"]]  # none where it is not to be seen any more
            return
        if is_post(value):
            yield [value]
            return
        for key, item in value.items():
            if key not in UNRELATED:
                yield from chains(item)
    elif isinstance(value, list):
        for item in value:
            yield from chains(item)


def is_post(value: dict[str, Any]) -> bool:
    return ("pk" in value and value.get("code") is not None) or ("permalink" in value and "timestamp" in value)


def is_shown(raw: dict[str, Any]) -> bool:
    """False for a post that the page names and does not show any more."""
    info = raw.get("text_post_app_info")
    return not (isinstance(info, dict) and info.get("is_post_unavailable") is True)


def _page_post(row: PageRow, board: str, author_key: AuthorKey) -> Post:
    code = row.code
    if code_of(str(row.pk)) != code:
        raise MalformedError(f"post {row.pk} whose code {code!r} is not its number")
    if row.id is not None and not row.id.startswith(f"{row.pk}_"):
        raise MalformedError(f"post {code} with another's id {row.id!r}")
    created = datetime.fromtimestamp(row.taken_at, UTC)
    text, flags = _text(row)
    return Post(
        source="threads",
        board=board,
        kind="reply" if row.info.is_reply else "post",
        post_id=code,
        url=f"{ORIGIN}/@{USER}/post/{code}",
        text_raw=f"{text}\n{shown(created)}" if text else "",
        text=text,
        author_key=author_key(row.user.username),
        created_at=created,
        quoted=_quote(row.info.share_info),
        score=None if row.like_and_view_counts_disabled else row.like_count,
        flags=flags,
    )


def _text(row: PageRow) -> tuple[str, list[str]]:
    """The caption, its fragments in agreement with it, and a long text attached to it."""
    text = row.caption.text if row.caption else ""
    fragments = row.info.text_fragments.fragments if row.info.text_fragments else None
    parts = [part for part in fragments or [] if part]
    pieces = "".join(part.plaintext or "" for part in parts)
    if text and pieces and not _agree(text, pieces, parts):
        raise MalformedError(f"post {row.code} whose caption and fragments differ")
    text = text or pieces
    flags = [] if text else ["no_text"]
    snippet = row.info.snippet_attachment_info
    if snippet and (long := snippet.snippet_text or snippet.text):
        text, flags = f"{text}\n{long}".strip(), [*flags, "long_text"]
    return MENTION.sub(f"@{USER}", text).strip(), flags


def _agree(text: str, pieces: str, parts: list[Fragment]) -> bool:
    """The caption is its fragments; where some are links, mentions or tags, which may be shown shorter, the plain
    ones stand in it in order."""
    whole = _plain(text)
    if whole == _plain(pieces):
        return True
    plain = [_plain(part.plaintext or "") for part in parts if part.fragment_type == "plaintext"]
    if len(plain) == len(parts):
        return False
    at = 0
    for piece in plain:
        found = whole.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _plain(text: str) -> str:
    return re.sub(r"[\s\u2060\u200b]+", "", text)


def _quote(share: Share | None) -> str | None:
    quoted = share.quoted_post if share else None
    return MENTION.sub(f"@{USER}", quoted.caption.text) or None if quoted and quoted.caption else None


def _api_post(raw: dict[str, Any], board: str, author_key: AuthorKey) -> Post:
    row = sent(ApiRow, raw, "an API row")
    match = PERMALINK.fullmatch(row.permalink)
    if not match:
        raise MalformedError(f"an API row whose permalink is {row.permalink[:60]!r}")
    text = MENTION.sub(f"@{USER}", row.text or "").strip()
    return Post(
        source="threads",
        board=board,
        kind="reply" if row.is_reply else "post",
        post_id=match[1],
        url=f"{ORIGIN}/@{USER}/post/{match[1]}",
        text_raw=f"{text}\n{shown(row.timestamp)}" if text else "",
        text=text,
        parent_id=code_of(row.replied_to.id) if row.replied_to else None,
        thread_id=code_of(row.root_post.id) if row.root_post else None,
        author_key=author_key(row.username) if row.username else None,
        created_at=row.timestamp,
        flags=[] if text else ["no_text"],
    )


def has_more(value: Any) -> bool:
    """Whether a payload says that it goes on."""
    if isinstance(value, dict):
        return bool(value.get("has_next_page")) or any(
            has_more(item) for key, item in value.items() if key not in UNRELATED
        )
    return isinstance(value, list) and any(has_more(item) for item in value)
