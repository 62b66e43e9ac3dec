"""Random nights on a large board: whatever is deleted, shifted, refused or odd, no post is missed without a word."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace

import pytest

from persona_dagster.archive.history import History, Sighting
from persona_dagster.config.sources import Pace, Site
from persona_dagster.crawl import walk_ptt
from persona_dagster.crawl.fetcher import BudgetSpentError, CrawlReport, Pass
from persona_dagster.crawl.frontier import Frontier
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.pace import HostClosedError, Pacer
from persona_dagster.crawl.walk_ptt import PttWalk
from persona_dagster.records import Outcome
from persona_dagster.sites.parser_results import Parsed
from persona_dagster.sites.ptt.listing import disproof, parse_listing

SCHEDULES, SOAK_SCHEDULES, PARTS = 30, 1000, 3
POSTS, BUDGET, PAGE = 100_000, 600, 20
NIGHT = 86_400.0
SECONDS = 400.0  # between two posts
DEPTHS = (220, 430, 860)  # posts that lie within the goal: 1, 2 and 4 days
BEGAN = 1_700_000_000
ID = re.compile(r"/(M\.\d+\.A\.[0-9A-F]+)\.html")
ARTICLE = b"<html>an article</html>"


@pytest.fixture(autouse=True)
def read_without_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk is on trial, not the parser, which would be half of the time."""
    monkeypatch.setattr(walk_ptt, "parse_article", lambda *_, **__: Parsed(Outcome.OK))


@dataclass
class Board:
    """A board of 100,000 posts, of which a schedule looks at the newest: rows from the oldest, pages computed."""

    rng: random.Random
    now: float = BEGAN + POSTS * SECONDS
    rows: list[str | None] = field(default_factory=list)
    everything: set[str] = field(default_factory=set)
    refused: dict[str, Outcome] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    shifts: float = 0.0  # chance of an expiry before a request
    bad_pages: dict[int, int] = field(default_factory=dict)  # listing pages that come cut: how many times
    settled: set[str] = field(default_factory=set)  # posts that came, or are known to be gone
    again: int = 0  # requests for those: looks by the ladder, which no backfill needs
    # Listing pages that were had and proved (place and rows), and how many of them were asked for again though nothing
    # had expired, and though the page above them showed that the known begins there.
    shown: set[tuple[int, int, tuple[str | None, ...]]] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    overlaps: bool = False
    twice: int = 0
    expired: int = 0

    def post(self, at: float) -> str:
        moment = int(at)
        odd = self.rng.random()
        if odd < 0.001:
            moment = 2_000_000_000 + self.rng.randrange(1000)  # of 2033
        elif odd < 0.01 and self.rows and self.rows[-1]:
            moment = int(self.rows[-1].split(".")[1])  # the same second
        key = f"M.{moment}.A.{len(self.everything):05X}"
        self.rows.append(key)
        self.everything.add(key)
        if self.rng.random() < 0.003:
            self.refused[key] = self.rng.choice([Outcome.BLOCKED, Outcome.SERVER_BUSY])
        return key

    def delete(self, first: int, count: int) -> None:
        for n in range(max(first, 0), min(first + count, len(self.rows))):
            if (key := self.rows[n]) is not None:
                self.gone.add(key)
                self.rows[n] = None

    def expire(self, count: int) -> None:
        for key in self.rows[:count]:
            if key:
                self.gone.add(key)
        del self.rows[:count]
        self.expired += count

    def answer(self, url: str) -> Fetched:
        self.asked[url] += 1
        if self.rng.random() < self.shifts:
            self.expire(self.rng.choice([1, 3, 7, 19, 20, 33, 60]))
        if found := re.search(r"/index(\d*)\.html", url):
            last = -(-len(self.rows) // PAGE)
            number = int(found[1] or last)
            if not 1 <= number <= last:
                return Fetched(url, Outcome.GONE, 404)
            rows = self.rows[(number - 1) * PAGE : number * PAGE]
            if found[1] and self.bad_pages.get(number, 0) > 0:
                self.bad_pages[number] -= 1
                rows = rows[: self.rng.randrange(1, PAGE)]
            body = listing(rows, number).encode()
            ids = {key for key in rows if key}
            proved = not found[1] or not disproof(parse_listing(body, board="Big"), number, self.now)
            if found[1] and ids and proved:
                page = (self.expired, number, tuple(rows))
                self.twice += page in self.shown and self.overlaps
                self.shown.add(page)
            # A cut page shows nothing of what lies below it.
            self.overlaps = proved and len(ids & self.listed) > 1
            self.listed |= ids if proved else set()
            return Fetched(url, Outcome.OK, 200, {}, body)
        match = ID.search(url)
        assert match
        self.again += match[1] in self.settled
        if match[1] not in self.refused or match[1] in self.gone:
            self.settled.add(match[1])
        if match[1] in self.gone:
            return Fetched(url, Outcome.GONE, 404)
        if match[1] in self.refused:
            outcome = self.refused[match[1]]
            return Fetched(url, outcome, 403 if outcome is Outcome.BLOCKED else 500, why="refused")
        return Fetched(url, Outcome.OK, 200, {}, ARTICLE)


def listing(rows: list[str | None], number: int) -> str:
    cells = '<div class="meta"><div class="author">{}</div><div class="date">1/01</div><div class="mark"></div></div>'
    body = "".join(
        '<div class="r-ent"><div class="nrec"></div><div class="title">'
        + (f'<a href="/bbs/Big/{key}.html">t</a>' if key else "(本文已被刪除) [x]")
        + f"</div>{cells.format('a' if key else '-')}</div>"
        for key in rows
    )
    older = f'<a class="btn wide" href="/bbs/Big/index{number - 1}.html">&lsaquo; 上頁</a>' if number > 1 else ""
    return (
        f'<html><div class="btn-group btn-group-paging">{older}</div><div class="r-list-container">{body}</div></html>'
    )


class Night(Pass):
    """A pass whose site is the board, whose archive is a dictionary, and whose time stands still."""

    def __init__(self, board: Board, frontier: Frontier, seen: dict[tuple[str, str], History], days: int):
        self.source, self.board, self.board_ = "ptt", "Big", board
        pace = Pace(max_requests=BUDGET, requests_per_second=1e9, jitter=0)
        self.site = Site(
            origin="https://www.ptt.cc", hosts=("www.ptt.cc",), boards=("Big",), pace=pace, first_days=days
        )
        self.frontier, self.seen = frontier, seen
        self.http = SimpleNamespace(fetch=board.answer)  # type: ignore[assignment]
        self.archive = SimpleNamespace(newest=lambda *_: None)  # type: ignore[assignment]
        self.clock = lambda: board.now
        self.started = board.now
        board.now += 1
        self.pacer = Pacer(pace, self.clock, lambda _: None)
        self.pacer.wait = self.check  # type: ignore[method-assign]
        self.report = CrawlReport("ptt", "Big")
        self.log = lambda _: None
        self.board_now, self.suspect, self.last_why = board.now, False, ""
        self.failed, self.streak, self.waiting = set(), [], []
        self.robots = SimpleNamespace(allows=lambda _: True, delay=0.0)  # type: ignore[assignment]
        self.lease = SimpleNamespace(next_at=0.0)  # type: ignore[assignment]

    def check(self) -> None:
        if self.pacer.closed:
            raise self.pacer.closed

    def history(self, kind: str, key: str) -> History | None:
        return self.seen.get((kind, key))

    def keep(self, kind, key, fetched, counted=True, names=()) -> None:  # type: ignore[no-untyped-def]
        if kind == "article":
            at = datetime.fromtimestamp(self.clock(), UTC)
            one = Sighting(kind, key, fetched.url, at, fetched.status, fetched.outcome.value, key, True, "", 0)
            self.seen.setdefault((kind, key), History()).sightings.append(one)

    def run(self) -> str:
        try:
            PttWalk(self, None, None).run()
        except (BudgetSpentError, HostClosedError) as error:
            return str(error)
        return self.report.stopped


@dataclass
class Knowing:
    """A crawler that knows the site: it asks for each post that can be had within the goal once, and each night for the
    listing pages that hold rows which it has not read, the newest page at least."""

    read: set[str] = field(default_factory=set)
    pages: int = 0

    def night(self, rows: list[str | None], goal: int) -> None:
        fresh = set[int]()
        for n in range(len(rows) - 1, -1, -1):
            if (key := rows[n]) is None:
                continue
            if goal > int(key.split(".")[1]):
                break
            if key not in self.read:
                self.read.add(key)
                fresh.add(n // PAGE)
        self.pages += max(1, len(fresh))

    def requests(self, board: Board, seen: dict[tuple[str, str], History]) -> int:
        """Posts that were deleted before anybody could ask for them are not counted."""
        there = set(board.rows)
        return self.pages + sum(1 for key in self.read if key in there or ("article", key) in seen)


@cache
def old_rows() -> list[str]:
    """What the board has held for longer than any schedule looks back."""
    return [f"M.{int(BEGAN + n * SECONDS)}.A.F{n:05X}" for n in range(POSTS)]


def schedule(seed: int) -> tuple[Board, Frontier, dict[tuple[str, str], History], int, Knowing]:
    """Nights until the board stands still and is complete; the number of nights, and what they had needed."""
    rng = random.Random(seed)
    board = Board(rng)
    depth = rng.choice(DEPTHS)
    start = POSTS - depth * 2
    board.rows = list(old_rows()[:start])
    for n in range(start, POSTS):
        board.post(BEGAN + n * SECONDS)
    for _ in range(rng.randrange(4)):
        board.delete(start + rng.randrange(len(board.rows) - start), rng.choice([3, 25, 45, 70]))
    board.shifts = rng.choice([0, 0, 0.002, 0.01])
    board.bad_pages = {
        rng.randrange(start // PAGE, len(board.rows) // PAGE): rng.choice([1, 2, 9]) for _ in range(rng.randrange(3))
    }
    days = max(1, int(depth * SECONDS / 86_400))
    frontier, seen = Frontier(), dict[tuple[str, str], History]()
    busy, knowing = rng.randrange(2, 6), Knowing()
    for night in range(60):
        rows = list(board.rows)
        why = Night(board, frontier, seen, days).run()
        knowing.night(rows, frontier.note("goal"))
        board.now += NIGHT
        if night < busy:
            for n in range(rng.choice([0, 5, 40, 130])):
                board.post(board.now - NIGHT + n * 60)
            if rng.random() < 0.4:
                board.delete(len(board.rows) - rng.randrange(1, 120), rng.choice([5, 21, 44]))
            if rng.random() < 0.4:
                board.expire(rng.choice([7, 20, 61]))
        else:
            board.shifts = 0.0
            spans = frontier.spans()
            if not why and len(spans) == 1 and not frontier.count("todo", "failing"):
                return board, frontier, seen, night + 1, knowing
    return board, frontier, seen, 60, knowing


def in_a_gap(listed: list[str], n: int, frontier: Frontier) -> bool:
    """Whether the row lies on a listing page that the frontier names as one that it could not have or prove."""
    near = sorted(int(key.split(".")[1]) for key in listed[max(n - 4, 0) : n + 5])
    at, page, spans = near[len(near) // 2], PAGE * SECONDS, frontier.spans()
    return any(
        span.why and (lower.newest if lower else 0) - page <= at <= span.oldest + page
        for span, lower in zip(spans, [*spans[1:], None], strict=False)
    )


@pytest.mark.parametrize("part", range(PARTS))
def test_no_post_is_missed_without_a_word(part: int, soak: bool) -> None:
    total = SOAK_SCHEDULES if soak else SCHEDULES
    asked = needed = twice = pages = 0
    seeds = range(part * total // PARTS, (part + 1) * total // PARTS)
    # 872: a page that no proof was had of hid an expiry, so that two stretches were counted from different moments.
    for seed in seeds if soak or part else [*seeds, 872]:
        board, frontier, seen, nights, knowing = schedule(seed)
        goal = frontier.note("goal")
        listed = [key for key in board.rows if key]
        # What is listed and lies within the goal, by its place in the listing.
        within = next((n for n, key in enumerate(listed) if goal <= int(key.split(".")[1]) < 1_999_999_999), 0)
        missing = [
            n
            for n, key in enumerate(listed[within + PAGE :], within + PAGE)
            if ("article", key) not in seen
            and (item := frontier.item("article", key), item is None or item.state not in ("quarantined", "failing"))[1]
        ]
        unnamed = [listed[n] for n in missing if not in_a_gap(listed, n, frontier)]
        assert not unnamed, f"seed {seed}: {len(unnamed)} of {len(listed)} missed: {unnamed[:3]}, {nights} nights"
        asked += sum(board.asked.values()) - board.again
        needed += knowing.requests(board, seen)
        twice += board.twice
        pages += sum(count for url, count in board.asked.items() if "/index" in url)
    print(f"{total // PARTS} schedules: {asked} requests, {needed} needed: {asked / needed:.3f}")
    print(f"{twice} of {pages} listing pages twice without need")
    assert asked <= 1.1 * needed
    # Where rows expire while a page comes cut, the gap that it leaves is closed later by a look at its other side.
    assert twice <= 0.01 * pages
