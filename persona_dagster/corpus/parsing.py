"""From captures to posts: which parser reads what, and what only a whole board can tell (which `Re:` answers whom)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from persona_dagster.archive.archive import LISTS, WALK
from persona_dagster.records import Capture, Outcome, PageKey, Post
from persona_dagster.reporting import progress
from persona_dagster.sites import browsed
from persona_dagster.sites.dcard import payloads as dcard
from persona_dagster.sites.parsed import AuthorKey, MalformedError, Parsed, incomplete, stamp
from persona_dagster.sites.ptt import article as ptt
from persona_dagster.sites.ptt.listing import parse_listing
from persona_dagster.sites.threads import payloads as threads

PARSER_VERSION = "6"  # raised when the same bytes would give other posts: everything is then parsed again
NOT_PARSED, REPLACED = "not_parsed", "replaced"
TOLD = 1000  # captures between two words of progress
THREAD_DAYS = 180  # a title comes back for another thread after that


@dataclass(slots=True)
class BoardPosts:
    """All posts of a board, each once; and what did not parse."""

    posts: list[Post]
    outcomes: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)  # "key: why", for people
    # (snapshot, NOT_PARSED or REPLACED, snapshot of what took its place)
    lost: list[tuple[str, str, str | None, str]] = field(default_factory=list)


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
            from persona_dagster.intake.rows import parse_row

            return parse_row(capture, author_key)
        case _, "saved" | "item":
            return browsed.parse_capture(capture, author_key)
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


def parse_board(
    captures: Iterable[Capture], author_key: AuthorKey, places: Mapping[str, int] | None = None
) -> BoardPosts:
    """Every post of a board's latest captures, by time. One that several captures hold is taken from the newest one.

    `places`: by snapshot the place of an imported row in its file, which orders rows without a time.
    """
    result = BoardPosts([])
    posts: dict[tuple[str, str], Post] = {}
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
        for post in parsed.posts:
            name = (post.board, post.post_id)  # the imports of one source hold many boards
            old = posts.get(name)
            if old is None or _better(post, old):
                posts[name] = post
            if old is not None and post.snapshot != old.snapshot:
                kept, lost = (post, old) if posts[name] is post else (old, post)
                result.lost.append((lost.snapshot or "", REPLACED, kept.snapshot, ""))
    order = places or {}

    def place(post: Post) -> tuple[datetime, int, int, str]:
        return (
            post.created_at or EPOCH,
            order.get(post.snapshot or "", 0),
            (post.floor or 0) if order else 0,
            post.post_id,
        )

    result.posts = link_replies(sorted(posts.values(), key=place))
    return result


EPOCH = datetime.fromtimestamp(0, UTC)


def _better(post: Post, old: Post) -> bool:
    """A post beats its mere title, a row that knows whom it answers one that does not; then the newer one."""
    return _worth(post) > _worth(old)


def _worth(post: Post) -> tuple[bool, bool, datetime]:
    return post.kind != "title", post.parent_id is not None, post.fetched_at or EPOCH


def link_replies(posts: list[Post]) -> list[Post]:
    """Ties PTT's `Re:` articles to the newest article before them with the same title, and their pushes with them.

    Without one (expired, or on another board) the articles of one title still share a thread.
    """
    roots: dict[tuple[str, str], list[Post]] = {}
    moved: dict[tuple[str, str], str] = {}
    articles = [post for post in posts if post.source == "ptt" and post.kind == "post" and post.title]
    for post in articles:
        title = ptt.plain_title(post.title or "")
        if not (post.thread_id or "").startswith("re:"):
            roots.setdefault((post.board, title), []).append(post)
            continue
        at = post.created_at or EPOCH
        near = [
            root
            for root in roots.get((post.board, title), [])
            if (root.created_at or EPOCH) <= at <= (root.created_at or EPOCH) + timedelta(days=THREAD_DAYS)
        ]
        if near:
            post.parent_id = near[-1].post_id
            post.thread_id = moved[post.board, post.post_id] = near[-1].post_id
    for post in posts:
        if post.source == "ptt" and post.kind != "post":
            post.thread_id = moved.get((post.board, post.post_id.split("#", 1)[0]), post.thread_id)
    return posts
