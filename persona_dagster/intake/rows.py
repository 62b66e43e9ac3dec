"""Rows of the import schema → posts: times in every spelling met, quotes apart, flat PTT text taken to pieces.

`text_raw` gets the residue that a page shows (`推 <user>: … 03/08 22:37`, `B3 … 11月2日`), so that imported and scraped
rows are one diet; user ids, nicknames and addresses in it are replaced as the sites' parsers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import text_digest
from persona_dagster.records import Kind, Post, Source
from persona_dagster.sites.dcard.payloads import shown
from persona_dagster.sites.parsed import ADDRESS, USER, AuthorKey, MalformedError
from persona_dagster.sites.ptt.article import ADDRESSES, ARTICLE_ID, NAMED, QUOTE, thread_of
from persona_dagster.sites.threads.payloads import MENTION, code_of

TAIPEI = ZoneInfo("Asia/Taipei")
CTIME = "%a %b %d %H:%M:%S %Y"
LOOSE_TIME = re.compile(r"(\d{4})[-/](\d\d?)[-/](\d\d?)(?:[T ](\d\d?):(\d\d)(?::(\d\d))?)?$")
PUSH_TIME = re.compile(r"(?:\S+ )?(\d\d?)/(\d\d?)(?: (\d\d):(\d\d))?$")  # no year; an address may stand before it
FLAT_HEAD = re.compile(
    r'^\s*"?作者(?P<author>.{1,60}?)(?:看板|站內)(?P<board>[0-9A-Za-z][0-9A-Za-z_.\-]+)標題(?P<title>[^\n]*?)'
    r"時間(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})"
)
FLAT_PUSH = re.compile(
    r"^(?P<tag>[推噓→]) ?(?P<user>[A-Za-z][0-9A-Za-z]{1,11}) *:(?P<text>.*?)"
    r"\s*(?P<when>(?:(?:\d{1,3}\.){3}\d{1,3} )?\d\d/\d\d(?: \d\d:\d\d)?)$"
)
PUSH_COLON = re.compile(r"^\s*:\s?")
TRAILER = re.compile(r"^※ (?:發信站|文章網址|編輯)|^◆ From:|^\s*$")


def row_posts(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    """The post of a row; of a `post_flat` also the pushes that are certainly pushes. `row_id` stands in for no id."""
    return READERS[row["source"]](row, row_id, author_key)


def words(row: dict[str, Any], name: str) -> str | None:
    """A field that is text, or a number that stands for it; nothing for null, empty and absent."""
    value = row.get(name)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError(f"a row whose {name} is a {type(value).__name__}")
    return str(value)


def base(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> Post:
    author, parent = words(row, "author"), words(row, "parent_id")
    return Post(
        source=cast(Source, row["source"]),
        board=words(row, "board") or IMPORT_BOARD,
        kind=cast(Kind, row["kind"]),
        post_id=row_id,
        url="",
        text_raw=row["text"].strip(),
        parent_id=parent,
        thread_id=parent or row_id,
        author_key=author_key(author) if author else None,
        title=words(row, "title"),
        score=whole(row.get("score")),
        tag=words(row, "tag"),
        floor=whole(row.get("floor")),
        flags=["hidden"] if row.get("deleted") else [],
    )


def whole(value: Any) -> int | None:
    """Counts come as numbers, as text, and as text with a fraction; what no count can be is none."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if abs(number) < 1e15 else None


def moment(text: str | None, near: datetime | None = None) -> datetime | None:
    """UTC; a time without a zone is Taipei's. One without a year needs `near`, before which it cannot lie."""
    if not text:
        return None
    at: datetime | None
    try:
        # Ten digits and up are unix seconds or milliseconds; fromisoformat would take eight for a date.
        number = float(text) if text[:10].isdecimal() and len(text) >= 10 else None
        if number is not None:
            return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        at = _odd_time(text, near)
    if at is None:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=TAIPEI)).astimezone(UTC)


def _odd_time(text: str, near: datetime | None) -> datetime | None:
    try:
        if match := LOOSE_TIME.match(text):
            year, month, day, hour, minute, second = (int(part or 0) for part in match.groups())
            return datetime(year, month, day, hour, minute, second)
        if (match := PUSH_TIME.match(text)) and near:
            month, day, hour, minute = (int(part or 0) for part in match.groups())
            start = near.astimezone(TAIPEI)
            at = datetime(start.year, month, day, hour, minute, tzinfo=TAIPEI)
            # Pushes follow their article: what seems a day before it came in the next year.
            return at if (start - at).days < 1 else at.replace(year=start.year + 1)
        return datetime.strptime(" ".join(text.split()), CTIME) if text[:1].isalpha() else None
    except ValueError:
        return None


def article_time(post_id: str | None) -> datetime | None:
    """The unix time in a PTT article's id (also in `id#3` of a push)."""
    match = ARTICLE_ID.match(post_id or "")
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


def mask_ptt(text: str) -> str:
    if "※" in text or "作者" in text or "發信人" in text:
        for pattern, placeholder in NAMED:
            text = pattern.sub(placeholder, text)
    return ADDRESSES.sub(ADDRESS, text) if "." in text else text


def quoted_lines(text: str) -> str | None:
    if "\n:" not in text and "\n>" not in text and not text.startswith((":", ">")):
        return None
    return "\n".join(QUOTE.sub("", line) for line in text.split("\n") if QUOTE.match(line)).strip() or None


def ptt_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    if row["kind"] == "post_flat":
        return flat_posts(row, row_id, author_key)
    post = base(row, row_id, author_key)
    near = article_time(post.parent_id or post.post_id)
    post.created_at = moment(words(row, "created_at"), near) or near
    if ARTICLE_ID.match(post.parent_id or post.post_id):
        post.url = f"https://www.ptt.cc/bbs/{post.board}/{(post.parent_id or post.post_id).split('#')[0]}.html"
    if post.kind == "comment":
        when = f" {post.created_at.astimezone(TAIPEI):%m/%d %H:%M}" if post.created_at else ""
        content = PUSH_COLON.sub("", post.text_raw)
        post.text_raw = mask_ptt(f"{post.tag or '→'} {USER}: {content}{when}")
        post.score = {"推": 1, "噓": -1}.get(post.tag or "", 0)
    else:
        post.text_raw = mask_ptt(post.text_raw)
        post.quoted = quoted_lines(post.text_raw)
        post.thread_id = thread_of(post.post_id, post.title)
    if post.kind == "post_clean":
        post.flags.append("punctuation_lost")
    return [post]


def flat_posts(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    """A page's bare text, header, body and pushes run together. What does not split for certain stays one text."""
    text = row["text"].strip()
    if text.startswith('"作者') and text.endswith('"'):
        text = text[1:-1].replace('""', '"')  # a CSV cell that kept its quotes
    head = FLAT_HEAD.match(text)
    post = base(row, row_id, author_key)
    post.kind = "post"
    post.flags.append("flat")
    if not head:
        post.text_raw = mask_ptt(text)
        post.quoted = quoted_lines(post.text_raw)
        return [post]
    author = head["author"].split("(", 1)[0].strip()
    post.board = words(row, "board") or head["board"]
    post.title = post.title or head["title"].strip() or None
    post.author_key = author_key(words(row, "author") or author)
    post.created_at = moment(head["time"])
    post.thread_id = thread_of(post.post_id, post.title)
    body, pushes = split_pushes(text[head.end() :].strip("\n").split("\n"))
    header = f"作者 {USER}\n看板 {post.board}\n標題 {head['title'].strip()}\n時間 {head['time']}"
    post.text_raw = mask_ptt("\n".join((header, *body)).strip())
    post.quoted = quoted_lines(post.text_raw)
    if pushes:
        post.score = sum({"推": 1, "噓": -1}.get(push["tag"], 0) for push in pushes)
    return [post, *(_flat_push(post, push, index, author_key) for index, push in enumerate(pushes))]


def flat_board(text: str) -> str | None:
    """The board that a flat text's header names."""
    head = FLAT_HEAD.match(text) if "看板" in text[:80] or "站內" in text[:80] else None
    return head["board"] if head else None


def split_pushes(lines: list[str]) -> tuple[list[str], list[re.Match[str]]]:
    """Body lines, and the pushes after it: the lines at the end that are pushes with a date, or the site's own."""
    start = len(lines)
    while start and (FLAT_PUSH.match(lines[start - 1]) or TRAILER.match(lines[start - 1])):
        start -= 1
    tail = [(line, FLAT_PUSH.match(line)) for line in lines[start:]]
    body = lines[:start] + [line for line, match in tail if not match]
    return body, [match for _, match in tail if match]


def _flat_push(post: Post, push: re.Match[str], index: int, author_key: AuthorKey) -> Post:
    at = moment(push["when"], post.created_at)
    when = push["when"].split(" ", 1)[1] if push["when"].count(".") == 3 else push["when"]
    return Post(
        source="ptt",
        board=post.board,
        kind="comment",
        post_id=f"{post.post_id}#{text_digest(push.group())[:12]}.{index}",
        url=post.url,
        text_raw=mask_ptt(f"{push['tag']} {USER}: {push['text'].strip()} {when}"),
        parent_id=post.post_id,
        thread_id=post.thread_id,
        author_key=author_key(push["user"]),
        created_at=at,
        score={"推": 1, "噓": -1}.get(push["tag"], 0),
        tag=push["tag"],
        floor=index + 1,
        flags=["flat"],
    )


def dcard_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    post = base(row, row_id, author_key)
    post.created_at = moment(words(row, "created_at"))
    post.url = f"https://www.dcard.tw/f/all/p/{post.parent_id or post.post_id}"
    if post.kind == "comment" and post.text_raw:
        floor = f"B{post.floor} " if post.floor is not None else ""
        when = f" {shown(post.created_at)}" if post.created_at else ""
        post.url += f"#comment-{post.post_id}"
        post.text_raw = f"{floor}{post.text_raw}{when}"
    return [post]


def threads_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    post = base(row, row_id, author_key)
    post.created_at = moment(words(row, "created_at"))
    if post.post_id.isdecimal():  # pages name posts by their code, which is the same number
        post.post_id = code_of(post.post_id)
        post.url = f"https://www.threads.com/t/{post.post_id}"
    if post.parent_id and post.parent_id.isdecimal():
        post.parent_id = code_of(post.parent_id)
    post.thread_id = post.parent_id or post.post_id
    when = f"\n{shown(post.created_at)}" if post.created_at else ""
    post.text_raw = MENTION.sub(f"@{USER}", post.text_raw) + when if post.text_raw else ""
    return [post]


READERS: dict[str, Callable[[dict[str, Any], str, AuthorKey], list[Post]]] = {
    "ptt": ptt_row,
    "dcard": dcard_row,
    "threads": threads_row,
}
