"""Rows of the import schema → posts: times read, quotes apart, flat PTT text taken to pieces.

`text_raw` gets the residue that a page shows (`推 <user>: … 03/08 22:37`, `B3 … 11月2日`), so that imported and scraped
rows look alike; user ids, nicknames and addresses in it are replaced as the sites' parsers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import text_digest
from persona_dagster.intake.schema import FLAT_HEAD, Row
from persona_dagster.intake.times import TAIPEI, moment
from persona_dagster.records import Capture, Kind, Outcome, Post, Source
from persona_dagster.sites.dcard.payloads import shown
from persona_dagster.sites.parser_results import ADDRESS, USER, AuthorKey, Parsed, incomplete
from persona_dagster.sites.ptt.article import ADDRESSES, ARTICLE_ID, BELOW, NAMED, thread_of
from persona_dagster.sites.ptt.quotes_and_line_wrapping import push_words, take_apart
from persona_dagster.sites.threads.payloads import MENTION, code_of

FLAT_PUSH = re.compile(
    r"^(?P<tag>[推噓→]) ?(?P<user>[A-Za-z][0-9A-Za-z]{1,11}) *:(?P<text>.*?)"
    r"\s*(?P<when>(?:(?:\d{1,3}\.){3}\d{1,3} )?\d\d/\d\d(?: \d\d:\d\d)?)$"
)
PUSH_COLON = re.compile(r"^\s*:\s?")
# A push that a dump kept as the page's line; where the dump names the tag apart, its text begins with words.
PUSH_LINE = re.compile(
    r"^ ?(?P<tag>[推噓→]) ?(?:<[A-Za-z]{4,6}>|[A-Za-z][0-9A-Za-z]{1,11}) *[:：] ?(?P<text>.*?)"
    r" ?(?:(?:<IP>|<ip>|(?:\d{1,3}\.){3}\d{1,3}) ?)?(?:\d\d/\d\d \d\d:\d\d|\d{4}/\d\d/\d\d \d\d:\d\d)?\s*$",
    re.DOTALL,
)


def parse_row(capture: Capture, author_key: AuthorKey) -> Parsed:
    """The posts of an archived row."""
    try:
        row = Row(orjson.loads(capture.body))
        return Parsed(Outcome.OK, row_posts(row, author_key))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        return incomplete(f"{type(error).__name__}: {error}")


def row_posts(row: Row, author_key: AuthorKey) -> list[Post]:
    """The post of a row; of a `post_flat` also the pushes that are certainly pushes."""
    return READERS[row.source](row.fields, row.row_id, author_key)


def base(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> Post:
    author, parent = row.get("author"), row.get("parent_id")
    return Post(
        source=cast(Source, row["source"]),
        board=row.get("board") or IMPORT_BOARD,
        kind=cast(Kind, row["kind"]),
        post_id=row_id,
        url=row.get("url", ""),
        text_raw=row["text"].strip(),
        parent_id=parent,
        thread_id=parent or row_id,
        author_key=author_key(author) if author else None,
        title=row.get("title"),
        score=row.get("score"),
        tag=row.get("tag"),
        floor=row.get("floor"),
        flags=[flag for flag, name in (("hidden", "deleted"), ("joined", "joined")) if row.get(name)],
    )


def article_time(post_id: str | None) -> datetime | None:
    """The unix time in a PTT article's id (also in `id#3` of a push)."""
    match = ARTICLE_ID.match(post_id or "")
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


def mask_ptt(text: str) -> str:
    if "※" in text or "作者" in text or "發信人" in text:
        for pattern, placeholder in NAMED:
            text = pattern.sub(placeholder, text)
    return ADDRESSES.sub(ADDRESS, text) if "." in text else text


def part(post: Post, text: str) -> None:
    """`text` and `quoted` of a PTT article that came as a page's text."""
    words = take_apart(text)
    post.text, post.quoted = words.own, words.quoted
    if words.flattened:
        post.flags.append("flattened")


def ptt_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    if row["kind"] == "post_flat":
        return flat_posts(row, row_id, author_key)
    post = base(row, row_id, author_key)
    near = article_time(post.parent_id or post.post_id)
    post.created_at = moment(row.get("created_at"), near) or near
    if ARTICLE_ID.match(post.parent_id or post.post_id):
        post.url = f"https://www.ptt.cc/bbs/{post.board}/{(post.parent_id or post.post_id).split('#')[0]}.html"
    if post.kind == "comment":
        when = f" {post.created_at.astimezone(TAIPEI):%m/%d %H:%M}" if post.created_at else ""
        content = PUSH_COLON.sub("", post.text_raw)
        if post.tag is None and (line := PUSH_LINE.match(content)):
            post.tag, content = line["tag"], line["text"]
        post.text_raw = mask_ptt(f"{post.tag or '→'} {USER}: {content}{when}")
        post.text = mask_ptt(push_words(content))
        post.score = {"推": 1, "噓": -1}.get(post.tag or "", 0)
    else:
        post.text_raw = mask_ptt(post.text_raw)
        if post.kind != "title":
            part(post, post.text_raw)
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
        part(post, post.text_raw)
        return [post]
    author = head["author"].split("(", 1)[0].strip()
    post.board = row.get("board") or head["board"]
    post.title = post.title or head["title"].strip() or None
    post.author_key = author_key(row.get("author") or author)
    post.created_at = moment(head["time"])
    post.thread_id = thread_of(post.post_id, post.title)
    body, pushes = split_pushes(text[head.end() :].strip("\n").split("\n"))
    header = f"作者 {USER}\n看板 {post.board}\n標題 {head['title'].strip()}\n時間 {head['time']}"
    post.text_raw = mask_ptt("\n".join((header, *body)).strip())
    part(post, mask_ptt("\n".join(body)))
    if pushes:
        post.score = sum({"推": 1, "噓": -1}.get(push["tag"], 0) for push in pushes)
    return [post, *(_flat_push(post, push, index, author_key) for index, push in enumerate(pushes))]


def split_pushes(lines: list[str]) -> tuple[list[str], list[re.Match[str]]]:
    """Body lines, and the pushes after it: the lines at the end that are pushes with a date, or the site's own."""
    start = len(lines)
    while start and (FLAT_PUSH.match(lines[start - 1]) or BELOW.match(lines[start - 1])):
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
        text=mask_ptt(push["text"].strip()),
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
    post.created_at = moment(row.get("created_at"))
    post.url = f"https://www.dcard.tw/f/all/p/{post.parent_id or post.post_id}"
    if post.kind == "comment" and post.text_raw:
        floor = f"B{post.floor} " if post.floor is not None else ""
        when = f" {shown(post.created_at)}" if post.created_at else ""
        post.url += f"#comment-{post.post_id}"
        post.text, post.text_raw = post.text_raw, f"{floor}{post.text_raw}{when}"
    return [post]


def threads_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    post = base(row, row_id, author_key)
    post.created_at = moment(row.get("created_at"))
    if post.post_id.isdecimal():  # pages name posts by their code, which is the same number
        post.post_id = code_of(post.post_id)
        post.url = f"https://www.threads.com/t/{post.post_id}"
    if post.parent_id and post.parent_id.isdecimal():
        post.parent_id = code_of(post.parent_id)
    post.thread_id = post.parent_id or post.post_id
    when = f"\n{shown(post.created_at)}" if post.created_at else ""
    post.text = MENTION.sub(f"@{USER}", post.text_raw)
    post.text_raw = post.text + when if post.text else ""
    return [post]


def chat_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    post = base(row, row_id, author_key)
    post.created_at = moment(row.get("created_at"))
    return [post]


def note_row(row: dict[str, Any], row_id: str, author_key: AuthorKey) -> list[Post]:
    """A row of a table of notes: its title asks, its text answers."""
    post = base(row, row_id, author_key)
    post.kind = "post"
    return [post]


READERS: dict[str, Callable[[dict[str, Any], str, AuthorKey], list[Post]]] = {
    "ptt": ptt_row,
    "dcard": dcard_row,
    "threads": threads_row,
    "chat": chat_row,
    "notes": note_row,
}
