"""From captures to posts: which parser reads what, and what only a whole board can tell (which `Re:` answers whom)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from persona_dagster.archive.archive import LISTS, WALK
from persona_dagster.corpus.quality import with_values
from persona_dagster.digest import text_digest
from persona_dagster.pipes_reporting import progress
from persona_dagster.records import POST_SCHEMA, Capture, Outcome, PageKey, Post
from persona_dagster.sites import browser_responses
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.parser_results import AuthorKey, MalformedError, Parsed, incomplete, stamp
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster.sites.threads import payloads as threads

PARSER_VERSION = "7"  # raised when the same bytes would give other posts: everything is then parsed again
NOT_PARSED, REPLACED = "not_parsed", "replaced"
TOLD = 1000  # captures between two words of progress
THREAD_DAYS = 180  # a title comes back for another thread after that


# Snapshot, NOT_PARSED or REPLACED, snapshot of what took its place, outcome of what was not parsed.
Lost = tuple[str, str, str | None, str]


@dataclass(slots=True)
class BoardPosts:
    """All posts of a board, each once; and what did not parse."""

    posts: list[Post]
    outcomes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)  # "key: why", for people
    lost: list[Lost] = field(default_factory=list)


def parse_capture(capture: Capture, author_key: AuthorKey) -> Parsed:
    """The posts of one capture, stamped with where they came from. Never raises on what a site sent."""
    if capture.outcome not in (Outcome.OK, Outcome.PARSE_INCOMPLETE):  # what did not parse then may parse now
        return Parsed(capture.outcome, why=f"status {capture.status}")
    parsed = _parse(capture, author_key)
    stamp(parsed.posts, capture)
    return parsed


def _parse(capture: Capture, author_key: AuthorKey) -> Parsed:  # noqa: PLR0911 - one return a kind
    match capture.source, capture.kind:
        case _, "row" | "import":  # `import`: as 0.1 archived rows
            from persona_dagster.intake.rows_to_posts import parse_row

            return parse_row(capture, author_key)
        case _, "saved" | "item":
            return browser_responses.parse_capture(capture, author_key)
        case _, "note":
            from persona_dagster.intake.notes import parse_note

            return parse_note(capture, author_key)
        case "ptt", "article":
            return ptt.parse_article(
                capture.body,
                board=capture.board,
                article_id=capture.key,
                author_key=author_key,
                fetched_at=capture.fetched_at,
            )
        case "ptt", "listing":
            return _names(capture)
        case _, kind if kind == WALK:
            return Parsed(Outcome.OK, flags=["listed"])
        case "dcard", _:
            first = PageKey.read(capture.key).after in (None, "0")
            post_id = capture.key if capture.kind == "post" else None
            return dcard.parse_dcard(
                capture.body, board=capture.board, author_key=author_key, first=first, post_id=post_id
            )
        case "threads", kind:
            # A post's page is asked for by its code; a search or a profile by its words.
            code = capture.key if kind == "page" and ":" not in capture.key else None
            return threads.parse_threads(capture.body, board=capture.board, author_key=author_key, code=code)
    return incomplete(f"no parser reads {capture.kind!r} of {capture.source}")


def _names(capture: Capture) -> Parsed:
    try:
        listing = parse_listing(capture.body)
    except MalformedError as error:
        return incomplete(str(error))
    return Parsed(Outcome.OK, flags=["listed"], why=f"{len(listing.rows)} rows")


def parse_captures(captures: Iterable[Capture], author_key: AuthorKey) -> BoardPosts:
    """Every post of these captures, in their order; one that several hold comes several times."""
    result = BoardPosts([])
    for number, capture in enumerate(captures, 1):
        if number % TOLD == 0:
            progress(f"{capture.source}/{capture.board}: captures parsed", number)
        if capture.kind in LISTS:
            continue
        parsed = parse_capture(capture, author_key)
        result.outcomes[parsed.outcome.value] += 1
        result.flags.update(parsed.flags)
        if not parsed.usable:
            result.problems.append(f"{capture.key}: {parsed.outcome}: {parsed.why}")
            result.lost.append((capture.sha256, NOT_PARSED, None, parsed.outcome.value))
            if parsed.outcome is not Outcome.LOGIN_WALL:
                continue
        result.posts += parsed.posts
    return result


def parse_board(
    captures: Iterable[Capture], author_key: AuthorKey, places: Mapping[str, int] | None = None
) -> BoardPosts:
    """Every post of a board's latest captures, each once, by time, and tied to what it answers."""
    result = parse_captures(captures, author_key)
    result.posts, lost = assembled(result.posts, places)
    result.lost += lost
    return result


def assembled(posts: list[Post], places: Mapping[str, int] | None = None) -> tuple[list[Post], list[Lost]]:
    """The posts of a board `each_once`, `in_order` and `linked`; and what was lost by it."""
    rows, lost = each_once(linking_frame(posts).with_row_index("row"))
    rows = linked(in_order(rows, places))
    once = [posts[row] for row in rows["row"]]
    for post, parent, thread in zip(once, rows["parent_id"], rows["thread_id"], strict=True):
        post.parent_id, post.thread_id = parent, thread
    return once, lost


# What of a post decides its place on the board and whom it answers; and `subject`.
LINKING = (
    "source",
    "board",
    "kind",
    "post_id",
    "parent_id",
    "thread_id",
    "created_at",
    "floor",
    "fetched_at",
    "snapshot",
)
EPOCH = datetime.fromtimestamp(0, UTC)


def linking_frame(posts: list[Post]) -> pl.DataFrame:
    columns = {name: pl.Series([getattr(post, name) for post in posts], dtype=POST_SCHEMA[name]) for name in LINKING}
    return pl.DataFrame(columns).with_columns(subjects(posts))


def subjects(posts: list[Post]) -> pl.Series:
    """By post what PTT's articles of one thread share, hashed: a title may name people."""
    titles = (post.title if post.source == "ptt" and post.kind == "post" else None for post in posts)
    hashed = [text_digest(ptt.plain_title(title)) if title else None for title in titles]
    return pl.Series("subject", hashed, dtype=pl.String)


def each_once(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[Lost]]:
    """Of rows of one board and id the best: a post beats its mere title, a row that knows whom it answers one that does
    not; then the one fetched last, then the first. And what was lost by it."""
    name = pl.struct("board", "post_id").hash()  # the imports of one source hold many boards
    several = rows.select(name.is_duplicated().arg_true()).to_series()
    best: dict[tuple[str, str], tuple[int, tuple[bool, bool, datetime], str]] = {}
    gone, lost = [], []
    columns = ("board", "post_id", "kind", "parent_id", "fetched_at", "snapshot")
    for row, (board, post_id, kind, parent, fetched, snapshot) in zip(
        several, rows.select(columns)[several].iter_rows(), strict=True
    ):
        new = row, (kind != "title", parent is not None, fetched or EPOCH), snapshot or ""
        old = best.setdefault((board, post_id), new)
        if old is new:
            continue
        kept, other = (new, old) if new[1] > old[1] else (old, new)
        best[board, post_id] = kept
        gone.append(other[0])
        if old[2] != new[2]:
            lost.append((other[2], REPLACED, kept[2], ""))
    if gone:
        rows = rows.filter(~pl.int_range(pl.len()).is_in(gone))
    return rows, lost


def in_order(rows: pl.DataFrame, places: Mapping[str, int] | None = None) -> pl.DataFrame:
    """By time. `places`: by snapshot the place of an imported row in its file, which orders rows without a time."""
    within = (
        [pl.col("snapshot").replace_strict(places, default=0, return_dtype=pl.Int64), pl.col("floor").fill_null(0)]
        if places
        else []
    )
    return rows.sort(pl.col("created_at").fill_null(EPOCH), *within, "post_id", maintain_order=True)


def linked(rows: pl.DataFrame) -> pl.DataFrame:
    """Ties PTT's `Re:` articles to the newest article before them with the same title, and their pushes with them.

    Without one (expired, or on another board) the articles of one title still share a thread.
    """
    roots: dict[tuple[str, str], list[tuple[str, datetime]]] = {}
    found: list[tuple[int, str, str, str]] = []
    told = ("board", "post_id", "subject", "thread_id", "created_at")
    titled = rows.select(told).with_row_index("row").filter(pl.col("subject").is_not_null())
    for row, board, post_id, about, thread, created in titled.iter_rows():
        at = created or EPOCH
        if not (thread or "").startswith("re:"):
            roots.setdefault((board, about), []).append((post_id, at))
            continue
        near = [
            root for root, since in roots.get((board, about), []) if since <= at <= since + timedelta(days=THREAD_DAYS)
        ]
        if near:
            found.append((row, board, post_id, near[-1]))
    if not found:
        return rows
    moved = pl.DataFrame(
        found, schema={"row": pl.UInt32, "board": pl.String, "article": pl.String, "root": pl.String}, orient="row"
    )
    answers = moved.select(row="row", parent_id="root", thread_id="root")
    pushes = rows.select("source", "kind", "board", "post_id").with_row_index("row")
    pushes = pushes.filter((pl.col("source") == "ptt") & (pl.col("kind") != "post"))
    pushes = pushes.select("row", "board", pl.col("post_id").str.extract("^([^#]*)").alias("article"))
    below = pushes.join(moved.drop("row"), on=["board", "article"]).select("row", thread_id="root")
    return with_values(with_values(rows, answers), below)
