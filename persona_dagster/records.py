"""The records that folders hand each other: their columns, types and meaning.

A leaf: it imports nothing of this package. What is here is shared by at least two folders; a shape that one folder
keeps to itself belongs there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

import polars as pl
from polars.datatypes import DataTypeClass

Source = Literal["ptt", "dcard", "threads", "chat", "notes", "capybara"]
FORUMS: tuple[Source, ...] = ("ptt", "dcard", "threads")
Kind = Literal["post", "comment", "reply", "title", "post_flat", "post_clean"]
HEADING_PATH = " › "  # between the headings of a note's title
Split = Literal["train", "validation", "test", "quarantine"]


class Outcome(StrEnum):
    """What became of one request, or of parsing one body. Only `OK` and `GONE` advance a crawl's state."""

    OK = "ok"
    GONE = "gone"
    GATE = "gate"
    LOGIN_WALL = "login_wall"
    CHALLENGE = "challenge"
    BLOCKED = "blocked"
    RATE_LIMITED = "rate_limited"
    SERVER_BUSY = "server_busy"
    TIMEOUT = "timeout"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    ROBOTS_DISALLOWED = "robots_disallowed"
    PARSE_INCOMPLETE = "parse_incomplete"
    EMPTY_OR_FILTERED = "empty_or_filtered"

    @property
    def advances(self) -> bool:
        return self in (Outcome.OK, Outcome.GONE)


@dataclass(frozen=True, slots=True)
class Capture:
    """One response as the site sent it: the unit of the raw archive.

    `url` is canonical (`https://www.ptt.cc/...`) even when the replica served it, so that nothing downstream
    depends on where the sample ran. `kind` says which parser reads the body; `key` names the thing within
    the board, and is stable over re-fetches (a PTT article id, a Dcard post id).
    """

    source: Source
    board: str
    kind: str  # listing | article | list | post | comments | page | api | note | dialogue | import
    key: str
    url: str
    fetched_at: datetime  # UTC
    status: int
    outcome: Outcome
    headers: dict[str, str]
    body: bytes
    sha256: str
    names: tuple[str, ...] = ()  # of a list: the ids of the posts that it names


@dataclass(slots=True)
class Post:
    """One post, comment or reply, as parsed. Comments are rows too, never nested.

    `text_raw` holds what a reader of the page sees, forum residue included (Version 1.0 learns from it); `text` what of
    it is the author's own, which the corpus cleans (Version 2.0). `author_key` is a keyed hash, made while parsing.
    """

    source: Source
    board: str
    kind: Kind
    post_id: str
    url: str
    text_raw: str
    parent_id: str | None = None  # the post_id that this row answers
    thread_id: str | None = None  # the post_id that opened the thread; a root's own id
    author_key: str | None = None
    created_at: datetime | None = None  # UTC
    title: str | None = None  # of a note: its heading, behind those that it stands under
    text: str | None = None  # None: all of `text_raw` is the author's own
    quoted: str | None = None  # what the author quotes of others, kept apart from their own words
    score: int | None = None
    tag: str | None = None  # 推 | 噓 | →
    floor: int | None = None
    lang: str | None = None
    flags: list[str] = field(default_factory=list)
    dup_of: str | None = None  # doc_id of the kept twin
    fetched_at: datetime | None = None  # UTC
    snapshot: str | None = None  # sha256 of the capture it was parsed from


UTC_TIME = pl.Datetime("us", "UTC")
Columns = dict[str, pl.DataType | DataTypeClass]

_POST: Columns = {
    "source": pl.String,
    "board": pl.String,
    "kind": pl.String,
    "post_id": pl.String,
    "parent_id": pl.String,
    "thread_id": pl.String,
    "url": pl.String,
    "author_key": pl.String,
    "created_at": UTC_TIME,
    "title": pl.String,
    "text_raw": pl.String,
    "text": pl.String,
    "quoted": pl.String,
    "score": pl.Int64,
    "tag": pl.String,
    "floor": pl.Int64,
    "lang": pl.String,
    "flags": pl.List(pl.String),
    "dup_of": pl.String,
    "fetched_at": UTC_TIME,
    "snapshot": pl.String,
}
POST_SCHEMA = pl.Schema(_POST)

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))

_DIALOGUE: Columns = {
    "pair_id": pl.String,  # hash of the doc ids and spans it was made of
    "builder": pl.String,
    "persona": pl.String,  # key in config/personas/; "general" where none applies (Capybara)
    "source": pl.String,
    "board": pl.String,
    "thread_id": pl.String,  # doc_id of the thread's first post: rows of one thread never part in the split
    "doc_ids": pl.List(pl.String),  # every post that gave text, question first
    "urls": pl.List(pl.String),  # where those posts stand, in the same order
    "answer_author": pl.String,
    "messages_raw": MESSAGES,  # from text_raw; user and assistant turns, no system message, no tag
    "messages": MESSAGES,  # from text; the same turns
    "score": pl.Float64,  # how well it fits its persona, 0-1
}
DIALOGUE_SCHEMA = pl.Schema(_DIALOGUE)

_SPLIT: Columns = {
    "pair_id": pl.String,
    "component": pl.String,  # smallest pair_id of the connected component
    "split": pl.String,  # train | validation | test | quarantine
}
SPLIT_SCHEMA = pl.Schema(_SPLIT)

_PROVENANCE: Columns = {
    "row_id": pl.String,  # pair_id + "-" + repeat number
    "pair_id": pl.String,
    "repeat": pl.Int32,
    "split": pl.String,
    "persona": pl.String,
    "tagged": pl.Boolean,
    "builder": pl.String,
    "source": pl.String,
    "board": pl.String,
    "doc_ids": pl.List(pl.String),
    "urls": pl.List(pl.String),
}
PROVENANCE_SCHEMA = pl.Schema(_PROVENANCE)

_GENERATION: Columns = {
    "prompt_id": pl.String,  # a test row's row_id, or the id of a probe
    "suite": pl.String,  # test | probe | routing | contradiction | knowledge | reference_train
    "model": pl.String,  # base | fewshot | adapter
    "asked": pl.String,  # the persona that ought to answer
    "tagged": pl.Boolean,
    "messages": MESSAGES,  # the prompt, system message included
    "reference": pl.String,  # null for probes without one
    "answer": pl.String,  # raw output, unfiltered
    "finish": pl.String,  # stop | length
    "new_tokens": pl.Int32,
}
GENERATION_SCHEMA = pl.Schema(_GENERATION)


# Stands in an adapter that saw rows which were forgotten since, and in what was exported or laid out of it.
FORGOTTEN = "forgotten.json"


class DocId(NamedTuple):
    """The name of a post everywhere in the lineage: `source:board:post_id`."""

    source: str
    board: str
    post_id: str

    @classmethod
    def read(cls, text: str) -> DocId:
        return cls(*text.split(":", 2))

    def __str__(self) -> str:
        return f"{self.source}:{self.board}:{self.post_id}"


def doc_id(source: str, board: str, post_id: str) -> str:
    return str(DocId(source, board, post_id))


class RowId(NamedTuple):
    """The name of a row of a mix: `pair_id-repeat`; without a repeat, that of all rows of a pair."""

    pair: str
    repeat: str = ""

    @classmethod
    def read(cls, text: str) -> RowId:
        pair, _, repeat = text.rpartition("-")
        return cls(pair, repeat) if pair else cls(repeat)

    def __str__(self) -> str:
        return f"{self.pair}-{self.repeat}" if self.repeat else self.pair


class PageKey(NamedTuple):
    """The key of a capture: of a post, or of the page of its comments that begins after one of them (`230000001@0`)."""

    post: str
    after: str | None = None

    @classmethod
    def read(cls, key: str) -> PageKey:
        post, mark, after = key.partition("@")
        return cls(post, after if mark else None)

    def __str__(self) -> str:
        return self.post if self.after is None else f"{self.post}@{self.after}"


def posts_frame(posts: list[Post]) -> pl.DataFrame:
    """Posts as a frame of `POST_SCHEMA`."""
    columns = {name: [getattr(post, name) for post in posts] for name in POST_SCHEMA}
    return pl.DataFrame(columns, schema=POST_SCHEMA)
