"""The first day on the sites as they are known to be: every post of all three, whatever each of them does."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import Source
from persona_dagster.sample.content_loader import Content
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import BESIDE, Replica, serve
from persona_dagster.sample.scenarios import KNOWN, scenario
from persona_dagster_tests.crawled import Crawl
from persona_dagster_tests.sample.conftest import dcard_item, ptt_item, threads_item

pytestmark = pytest.mark.browser
PTT, DCARD, THREADS = 70, 22, 34
CONTENT = Content(
    {"Boy-Girl": [ptt_item(n, day=n // 4) for n in range(PTT)]},
    {"mood": [dcard_item(n, day=n // 2, comments=[{"text": f"留言 {n}"}]) for n in range(DCARD)]},
    {"失戀": [threads_item(n, day=n // 2, replies=[{"user": "other", "text": f"回 {n}"}]) for n in range(THREADS)]},
)
EVERY = {
    "ptt": {f"這是第 {n} 篇的內容。" for n in range(PTT)},
    "dcard": {f"內容 {n}" for n in range(DCARD)},
    "threads": {f"一句話 {n}" for n in range(THREADS)},
}
BOARDS: dict[Source, str] = {"ptt": "Boy-Girl", "dcard": "mood", "threads": "失戀"}
MOVED = 14  # of PTT's oldest rows, which expire while the walk goes back


def site_of(name: str) -> Source:
    return "dcard" if any("dcard/" in rule.match for one in KNOWN if one.name == name for rule in one.rules) else "ptt"


def first_day(source: Source, running: Replica, tiny: Sources, folder: Path) -> set[str]:
    """A first pass, and one that goes on where it was stopped; the texts that are missing."""
    board, archive = BOARDS[source], Archive(folder)
    for _ in range(2):
        report = crawl_board(source, board, tiny, archive, transport=Transport(running.rewrites), log=lambda _: None)
        if report.complete:
            break
    assert report.complete, report.why
    texts = [post.text_raw for post in parse_board(archive.latest(source, board), str).posts if post.kind == "post"]
    return {text for text in EVERY[source] if not any(text in found for found in texts)}


# Those of Dcard's details cost seconds of a browser, and come with all at once below, too.
SLOW = ("details_in_the_dom", "plain_http_challenged")
EACH = [pytest.param(one.name, marks=[pytest.mark.soak] if one.name in SLOW else []) for one in KNOWN]


@pytest.mark.parametrize("name", EACH)
def test_each_truth_costs_no_post(name: str, tiny: Sources, tmp_path: Path) -> None:
    with serve(CONTENT, scenario=scenario(name)) as running:
        missing = first_day(site_of(name), running, tiny, tmp_path)
    assert running.scenario.struck or "plain" in name, "the walk met it"  # Dcard is never asked over plain HTTP
    assert len(missing) <= (MOVED if name == "ptt_moved_rows" else 0), sorted(missing)
    if name == "server_rendered":
        paged = [one.target for one in running.asked if "globalPaging" in one.target]
        assert "offset=15" in paged[0], "the second page came by the page's own JSON"
    beside = [one for one in running.asked if one.site in BESIDE]
    assert not beside, "nobody but the site was asked"


def test_all_at_once_on_all_three_sites(tiny: Sources, tmp_path: Path) -> None:
    with serve(CONTENT, scenario=scenario()) as running:
        missing = {source: first_day(source, running, tiny, tmp_path) for source in BOARDS}
    assert {source: len(texts) for source, texts in missing.items() if texts}.keys() <= {"ptt"}, missing
    assert len(missing["ptt"]) <= MOVED


@pytest.mark.parametrize("source", BOARDS)
def test_an_empty_list_is_never_complete(source: Source, crawl_with: Crawl) -> None:
    report, archive, running = crawl_with(source, BOARDS[source], Rule("empty", rf"{source}/", times=None))
    assert running.scenario.struck
    assert not report.complete
    assert not [one for one in archive.latest(source, BOARDS[source]) if one.kind in ("article", "post", "page")]


def test_plain_http_meets_the_challenge_at_robots_too() -> None:
    """The scenario itself: what no walk here does, and another crawler would."""
    import httpx

    with serve(CONTENT, scenario=scenario("plain_http_challenged")) as running:
        for path in ("/robots.txt", "/f/mood"):
            answer = httpx.get(running.url(f"https://www.dcard.tw{path}"))
            assert (answer.status_code, answer.headers["cf-mitigated"]) == (403, "challenge")


@pytest.mark.parametrize("place", ["ptt/robots", "ptt/bbs/[^/]+/index", r"ptt/bbs/[^/]+/M\."])
def test_ptt_goes_by_the_browser_where_plain_http_is_challenged(place: str, tiny: Sources, tmp_path: Path) -> None:
    rules = Scenario([Rule("challenge", place, times=None, spares_browsers=True)])
    with serve(CONTENT, scenario=rules) as running:
        assert not first_day("ptt", running, tiny, tmp_path)
    assert len(running.scenario.struck) == 1, "asked over HTTP once, then by the browser for good"


def test_every_scenario_says_how_it_is_known() -> None:
    assert len({one.name for one in KNOWN}) == len(KNOWN)
    assert all(one.source and one.says and one.known in ("observed", "reported") for one in KNOWN)
    with pytest.raises(ValueError, match="no scenario"):
        scenario("made up")
