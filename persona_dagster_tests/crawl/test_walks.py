"""How the walks find their way: a past day by bisection, a search by scrolling, the operator's own browser by CDP."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.frontier import NAME as FRONTIER
from persona_dagster.crawl.frontier import Frontier
from persona_dagster.crawl.transport import Transport
from persona_dagster.sample.clock import moment
from persona_dagster.sample.content_loader import Content, PttItem, ptt_file
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

BOARD, ROWS, PAGE = "Boy-Girl", 800, 20
Items = list[PttItem]


def quiet(_: str) -> None:
    """No log."""


@pytest.fixture(scope="module")
def items() -> Items:
    """Forty pages of articles over twenty days, forty a day."""
    return [ptt_item(n, day=n // 40, time=f"{n % 40 // 2:02d}:{n % 2 * 30:02d}") for n in range(ROWS)]


@pytest.fixture(scope="module")
def long_board(items: Items) -> Iterator[Replica]:
    with serve(Content({BOARD: items}, {}, {})) as running:
        yield running


def articles(archive: Archive) -> set[str]:
    return {key for kind, key in archive.histories("ptt", BOARD) if kind == "article"}


def listings(replica: Replica, since: int) -> list[str]:
    return [item.target for item in list(replica.asked)[since:] if re.search(r"/index\d*\.html", item.target)]


@pytest.mark.parametrize("days", [(3, 4), (0, 1), (18, 19), (9, 9)])
def test_a_past_day_is_found_by_bisecting(
    days: tuple[int, int], items: Items, long_board: Replica, tiny: Sources, tmp_path: Path
) -> None:
    archive, before = Archive(tmp_path), len(long_board.asked)
    since, until = moment(days[0], "06:00"), moment(days[1], "18:00")
    transport = Transport(long_board.rewrites)
    report = crawl_board(
        "ptt", BOARD, tiny, archive, transport=transport, since=since, until=until, log=quiet
    )  # fmt: skip
    assert report.complete, report.why
    wanted = {ptt_file(BOARD, item) for item in items if since < written(item) <= until}
    assert articles(archive) == wanted
    spanned = math.ceil(len(wanted) / PAGE) + 1
    # The newest page, log2 of the pages to find the first, those of the days, and the first again.
    assert len(listings(long_board, before)) <= 1 + math.ceil(math.log2(ROWS / PAGE)) + 1 + spanned + 1
    # It says nothing of what lies between that day and now: no watermark.
    assert report.watermark is None
    assert Frontier(archive.place("ptt", BOARD, FRONTIER)).spans() == []


def written(item: PttItem) -> datetime:
    """When the article's id says that it was posted."""
    return datetime.fromtimestamp(int(ptt_file(BOARD, item).split(".")[1]), moment(0, "00:00").tzinfo)


def test_a_small_budget_reaches_far_back_in_the_end(
    items: Items, long_board: Replica, tiny: Sources, tmp_path: Path
) -> None:
    """The way back has a cursor: each pass goes on where the one before was cut off, and lists no page twice."""
    archive, transport, before = Archive(tmp_path), Transport(long_board.rewrites), len(long_board.asked)
    pace = tiny.ptt.pace.model_copy(update={"max_requests": 60, "cache_minutes": 15.0})
    short = tiny.model_copy(update={"ptt": tiny.ptt.model_copy(update={"pace": pace, "first_days": 1})})
    passes = 0
    while passes < 20:
        passes += 1
        report = crawl_board(
            "ptt", BOARD, short, archive, transport=transport, since=moment(15, "00:00"), log=quiet,
            clock=lambda passes=passes: time.time() + passes * 1000.0,
        )  # fmt: skip
        if report.complete:
            break
        assert report.stopped.startswith("budget")
    wanted = {ptt_file(BOARD, item) for item in items if written(item) > moment(15, "00:00")}
    assert articles(archive) == wanted
    pages = [target for target in listings(long_board, before) if re.search(r"index\d", target)]
    assert len(pages) == len(set(pages))
    asked = len(list(long_board.asked)[before:])
    assert asked <= 1.1 * (len(wanted) + len(wanted) / PAGE) + 2 * passes, (asked, len(wanted), passes)


def test_rows_that_expire_during_a_walk_move_nothing_out_of_sight(items: Items, tiny: Sources, tmp_path: Path) -> None:
    """Seven rows vanish in the middle of the way down: every row is on a lower page then, which is still to come."""
    rules = Scenario([Rule("shift", rf"ptt/bbs/{BOARD}/index", nth=9)])
    archive = Archive(tmp_path)
    with serve(Content({BOARD: items}, {}, {}), scenario=rules) as running:
        transport = Transport(running.rewrites)
        since, until = moment(5, "00:00"), moment(6, "12:00")
        report = crawl_board("ptt", BOARD, tiny, archive, transport=transport, since=since, until=until, log=quiet)
    assert report.complete, report.why
    assert articles(archive) == {ptt_file(BOARD, item) for item in items if since < written(item) <= until}


# Browsers


@pytest.fixture(scope="module")
def crowd() -> Iterator[Replica]:
    """More than one page of a search, and more than one of a forum."""
    content = Content(
        {},
        {"mood": [dcard_item(n, day=n // 3, comments=[{"text": f"留言 {n}"}]) for n in range(16)]},
        {"失戀": [threads_item(n, day=n // 3, user=f"user{n % 3}") for n in range(36)]},
    )
    with serve(content) as running:
        yield running


@pytest.mark.browser
def test_a_search_is_scrolled_to_its_end(crowd: Replica, tiny: Sources, tmp_path: Path) -> None:
    archive, transport = Archive(tmp_path), Transport(crowd.rewrites)
    report = crawl_board("threads", "失戀", tiny, archive, transport=transport, log=quiet)
    assert report.complete, report.why
    assert report.new == 36
    asked = [item.target for item in crowd.asked if item.site == "threads" and "graphql" in item.target]
    assert len(asked) == 1, "30 in the page, 6 by its script"
    again = crawl_board("threads", "失戀", tiny, archive, transport=transport, log=quiet)
    assert (again.complete, again.new, again.digest) == (True, 0, report.digest)


@pytest.mark.browser
def test_a_long_list_leaves_half_of_a_small_budget_to_its_posts(tiny: Sources, tmp_path: Path) -> None:
    pace = tiny.dcard.pace.model_copy(update={"max_requests": 8})
    few = tiny.model_copy(update={"dcard": tiny.dcard.model_copy(update={"pace": pace})})
    content = Content({}, {"mood": [dcard_item(n, day=n // 20) for n in range(150)]}, {})  # ten pages
    with serve(content) as running:
        report = crawl_board("dcard", "mood", few, Archive(tmp_path), transport=Transport(running.rewrites), log=quiet)
    assert report.requests <= 8
    assert report.new >= 2, report.why
    assert not report.complete


@pytest.mark.browser
def test_an_account_is_a_board_too(crowd: Replica, tiny: Sources, tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    report = crawl_board("threads", "@user1", tiny, archive, transport=Transport(crowd.rewrites), log=quiet)
    assert report.complete, report.why
    posts = parse_board(archive.latest("threads", "@user1"), str).posts
    assert len(posts) == 12
    assert {post.author_key for post in posts} == {"user1"}
