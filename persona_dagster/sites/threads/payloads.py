"""Threads: pages with `data-sjs` JSON, relay payloads, API answers → posts and replies.

Posts are found by walking for objects with `pk` and `code`, never by path: paths change with every release. Posts
under `relatedPosts` are of other threads and are dropped; a quoted post is kept as the quote of the one that quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from persona_dagster.records import Outcome, Post
from persona_dagster.sites.dcard.payloads import load_json, shown
from persona_dagster.sites.parsed import USER, AuthorKey, MalformedError, Parsed, decode, incomplete

ORIGIN = "https://www.threads.com"
LATEST = 4_102_444_800  # unix seconds of the year 2100
SCRIPT = re.compile(r'<script\b([^>]*\btype="application/json"[^>]*)>(.*?)</script>', re.DOTALL)
LENGTH = re.compile(r'data-content-len="(\d+)"')
MARKERS = ("thread_items", "searchResults")  # of scripts that hold posts; a page has 43 others
UNRELATED = frozenset(["relatedPosts", "related_posts", "suggested_users"])
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
LOGIN_PAGE = re.compile(r"<title>[^<]*(?:Log in|登入)[^<]*</title>")
LOGIN_WALL = re.compile(r"Log in to see more replies|登入即可查看更多回覆|登入以查看更多|\"require_login\":\s*true")
PERMALINK = re.compile(r"https://(?:www\.)?threads\.(?:com|net)/@[^/]+/post/([A-Za-z0-9_-]+)/?")
MENTION = re.compile(r"(?<![\w@])@[A-Za-z0-9_.]{2,30}")


def code_of(pk: str) -> str:
    """The short code in a post's URL: its number in base 64."""
    number, code = int(pk), ""
    while number:
        number, digit = divmod(number, 64)
        code = ALPHABET[digit] + code
    return code


def parse_threads(body: bytes, *, board: str, author_key: AuthorKey, code: str | None = None) -> Parsed:
    """A page, a relay payload or an API answer. With `code`, the post of that code must be among the rows."""
    try:
        text = decode(body)
        page = text.lstrip().startswith("<")
        payloads = page_payloads(text) if page else [load_json(text)]
        posts = posts_from_payloads(payloads, board, author_key)
        more = any(_has_more(payload) for payload in payloads)
    except MalformedError as error:
        return incomplete(str(error))
    except RecursionError:
        return incomplete("nested too deep")
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
                post = post_of(raw, board, author_key)
                if post is None:
                    continue
                if post.kind == "reply" and post.parent_id is None:
                    post.parent_id = _answered(raw, above)
                above.append((post, (raw.get("user") or {}).get("username", "")))
                posts.setdefault(post.post_id, post)
            subject = subject or above
    rows = list(posts.values())
    _attach(rows)
    return rows


def _answered(raw: dict[str, Any], above: list[tuple[Post, str]]) -> str | None:
    """The last post above whose author the reply names; the last one where it names nobody; none where that author's
    post is not shown."""
    named = (raw.get("text_post_app_info") or {}).get("reply_to_author")
    author = named.get("username") if isinstance(named, dict) else None
    return next((post.post_id for post, user in reversed(above) if author in (None, user)), None)


def posts_from_payload(payload: Any, board: str, author_key: AuthorKey) -> list[Post]:
    """For importers: the posts of one decoded JSON value. Raises `MalformedError` on damaged rows."""
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


def post_of(raw: dict[str, Any], board: str, author_key: AuthorKey) -> Post | None:
    """One row; None for a post that the page names but does not show."""
    if "permalink" in raw:
        return _api_post(raw, board, author_key)
    info = raw.get("text_post_app_info") or {}
    if info.get("is_post_unavailable"):
        return None
    code, pk = raw.get("code"), raw.get("pk")
    if not (isinstance(code, str) and str(pk).isdigit() and code_of(str(pk)) == code):
        raise MalformedError(f"post {pk!r} whose code {code!r} is not its number")
    user = raw.get("user")
    if not (isinstance(user, dict) and user.get("username")):
        raise MalformedError(f"post {code} without its author")
    if not str(raw.get("id", f"{pk}_")).startswith(f"{pk}_"):
        raise MalformedError(f"post {code} with another's id {raw['id']!r}")
    taken = raw.get("taken_at")
    if type(taken) is not int or not 0 < taken < LATEST:
        raise MalformedError(f"post {code} without a time")
    created = datetime.fromtimestamp(taken, UTC)
    text, flags = _text(raw, info, code)
    is_reply = bool(info.get("is_reply"))
    quoted = (info.get("share_info") or {}).get("quoted_post")
    return Post(
        source="threads",
        board=board,
        kind="reply" if is_reply else "post",
        post_id=code,
        url=f"{ORIGIN}/@{USER}/post/{code}",
        text_raw=f"{text}\n{shown(created)}" if text else "",
        author_key=author_key(user["username"]),
        created_at=created,
        quoted=_quote(quoted),
        score=None if raw.get("like_and_view_counts_disabled") else raw.get("like_count"),
        flags=flags,
    )


def _text(raw: dict[str, Any], info: dict[str, Any], code: str) -> tuple[str, list[str]]:
    """The caption, its fragments in agreement with it, and a long text attached to it."""
    caption = raw.get("caption")
    if caption is not None and not isinstance(caption.get("text") if isinstance(caption, dict) else None, str):
        raise MalformedError(f"post {code} whose caption is no text")
    text = caption["text"] if caption else ""
    parts = (info.get("text_fragments") or {}).get("fragments") or []
    parts = [part for part in parts if isinstance(part, dict)]
    pieces = "".join(str(part.get("plaintext") or "") for part in parts)
    if text and pieces and not _agree(text, pieces, parts):
        raise MalformedError(f"post {code} whose caption and fragments differ")
    text = text or pieces
    flags = [] if text else ["no_text"]
    snippet = info.get("snippet_attachment_info")
    if isinstance(snippet, dict) and (long := snippet.get("snippet_text") or snippet.get("text")):
        text, flags = f"{text}\n{long}".strip(), [*flags, "long_text"]
    return MENTION.sub(f"@{USER}", text).strip(), flags


def _agree(text: str, pieces: str, parts: list[dict[str, Any]]) -> bool:
    """The caption is its fragments; where some are links, mentions or tags, which may be shown shorter, the plain
    ones stand in it in order."""
    whole = _plain(text)
    if whole == _plain(pieces):
        return True
    plain = [_plain(str(part.get("plaintext") or "")) for part in parts if part.get("fragment_type") == "plaintext"]
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


def _quote(quoted: Any) -> str | None:
    caption = quoted.get("caption") if isinstance(quoted, dict) else None
    text = caption.get("text") if isinstance(caption, dict) else None
    return MENTION.sub(f"@{USER}", text) if isinstance(text, str) and text else None


def _api_post(raw: dict[str, Any], board: str, author_key: AuthorKey) -> Post:
    """A row of the official API: `id`, `permalink`, `timestamp`, and text and username where the media has them."""
    match = PERMALINK.fullmatch(str(raw["permalink"]))
    if not match:
        raise MalformedError(f"an API row whose permalink is {str(raw['permalink'])[:60]!r}")
    try:
        created = datetime.strptime(str(raw["timestamp"]), "%Y-%m-%dT%H:%M:%S%z").astimezone(UTC)
    except ValueError as error:
        raise MalformedError(f"an API row whose time is {raw['timestamp']!r}") from error
    text = MENTION.sub(f"@{USER}", raw.get("text") or "").strip()
    replied = raw.get("replied_to") or {}
    root = raw.get("root_post") or {}
    return Post(
        source="threads",
        board=board,
        kind="reply" if raw.get("is_reply") else "post",
        post_id=match[1],
        url=f"{ORIGIN}/@{USER}/post/{match[1]}",
        text_raw=f"{text}\n{shown(created)}" if text else "",
        parent_id=code_of(replied["id"]) if str(replied.get("id", "")).isdigit() else None,
        thread_id=code_of(root["id"]) if str(root.get("id", "")).isdigit() else None,
        author_key=author_key(raw["username"]) if raw.get("username") else None,
        created_at=created,
        flags=[] if text else ["no_text"],
    )


def _has_more(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("has_next_page")) or any(
            _has_more(item) for key, item in value.items() if key not in UNRELATED
        )
    return isinstance(value, list) and any(_has_more(item) for item in value)
