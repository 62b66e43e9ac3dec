"""Every way in which the replica can misbehave has its own outcome, and none of them advances anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import Outcome
from persona_dagster.sample.content_loader import tiny as tiny_content
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sites.ptt import markup as ptt_markup
from persona_dagster_tests.crawled import Crawl

ARTICLE = r"ptt/bbs/Boy-Girl/M\."


@pytest.mark.parametrize(
    ("rule", "outcome"),
    [
        (Rule("404", ARTICLE), Outcome.GONE),
        (Rule("410", ARTICLE), Outcome.GONE),
        (Rule("500", ARTICLE, times=3), Outcome.SERVER_BUSY),
        (Rule("503", ARTICLE, times=3), Outcome.SERVER_BUSY),
        (Rule("429", ARTICLE, times=3), Outcome.RATE_LIMITED),
        (Rule("challenge", ARTICLE, times=None), Outcome.CHALLENGE),
        (Rule("private", ARTICLE), Outcome.BLOCKED),
        (Rule("gzip_bomb", ARTICLE), Outcome.TOO_LARGE),
        (Rule("large", ARTICLE), Outcome.TOO_LARGE),
        (Rule("reset", ARTICLE, times=3), Outcome.TRUNCATED),
        (Rule("length", ARTICLE, times=3), Outcome.TRUNCATED),
    ],
    ids=lambda value: value.fault if isinstance(value, Rule) else str(value.value),
)
def test_each_fault_has_its_outcome(crawl_with: Crawl, scraped: Archive, rule: Rule, outcome: Outcome) -> None:
    report, archive, _ = crawl_with("ptt", "Boy-Girl", rule)
    assert report.outcomes[outcome.value] >= 1, report.outcomes
    if outcome is Outcome.GONE:
        # One 404 is no deletion. (Seen a second time, in the same pass: the sample has no cache time.)
        assert report.due == 0
    else:
        assert report.problems
        assert report.due >= 1 or report.stopped
    again, _, _ = crawl_with("ptt", "Boy-Girl", archive=archive)
    assert again.complete
    assert archive.digest("ptt", "Boy-Girl") == scraped.digest("ptt", "Boy-Girl"), "as after an undisturbed pass"


def test_a_short_failure_is_asked_again_and_costs_nothing(crawl_with: Crawl) -> None:
    report, _, running = crawl_with("ptt", "Boy-Girl", Rule("500", ARTICLE, nth=5, times=1))
    assert report.complete
    assert report.outcomes[Outcome.SERVER_BUSY.value] == 1
    assert running.scenario.struck


@pytest.mark.parametrize("retry_after", ["0", "+0", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", "-5"])
def test_every_form_of_retry_after_is_understood(crawl_with: Crawl, retry_after: str) -> None:
    report, _, _ = crawl_with("ptt", "Boy-Girl", Rule("429", ARTICLE, nth=3, retry_after=retry_after))
    assert report.complete
    assert report.outcomes[Outcome.RATE_LIMITED.value] == 1


def test_a_long_retry_after_ends_the_pass_and_leaves_the_rest_due(crawl_with: Crawl) -> None:
    report, archive, running = crawl_with("ptt", "Boy-Girl", Rule("429", ARTICLE, nth=4, retry_after="7200"))
    assert "left alone" in report.stopped
    assert len([asked for asked in running.asked if "/M." in asked.target]) == 4
    assert len([capture for capture in archive.latest("ptt", "Boy-Girl") if capture.kind == "article"]) == 3


def test_a_challenge_closes_the_host(crawl_with: Crawl) -> None:
    report, _, running = crawl_with("ptt", "Boy-Girl", Rule("challenge", "ptt/bbs", times=None))
    assert report.refused
    assert not report.retryable
    asked = [one for one in running.asked if one.site == "ptt" and "robots" not in one.target]
    assert [one.from_browser for one in asked] == [False, True], "once over HTTP, once by a browser, and no more"


@pytest.mark.browser
def test_a_browser_takes_over_where_http_is_challenged(crawl_with: Crawl, scraped: Archive) -> None:
    report, archive, running = crawl_with(
        "ptt", "Boy-Girl", Rule("challenge", r"ptt/bbs/Boy-Girl/M\.", nth=4, times=None, spares_browsers=True)
    )
    assert report.complete, report.why
    assert report.outcomes[Outcome.CHALLENGE.value] == 1
    assert archive.digest("ptt", "Boy-Girl") == scraped.digest("ptt", "Boy-Girl")
    articles = [one.from_browser for one in running.asked if "/M." in one.target]
    assert articles[:4] == [False] * 4
    assert all(articles[4:]), "for good"


def test_a_slow_drip_is_cut_off(crawl_with: Crawl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpFetcher.__init__, "__kwdefaults__", {"total": 0.3})
    report, _, _ = crawl_with("ptt", "Boy-Girl", Rule("slow", ARTICLE, times=3, seconds=2))
    assert report.outcomes[Outcome.TIMEOUT.value] == 3
    assert report.due == 1


def test_a_hang_is_cut_off(crawl_with: Crawl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpFetcher.__init__, "__kwdefaults__", {"total": 0.3})
    report, _, _ = crawl_with("ptt", "Boy-Girl", Rule("hang", ARTICLE, nth=2, times=1, seconds=1))
    assert report.outcomes[Outcome.TIMEOUT.value] == 1
    assert report.complete, "asked again, it came"


def test_a_huge_article_comes_as_the_site_cuts_it(crawl_with: Crawl) -> None:
    report, archive, _ = crawl_with("ptt", "Boy-Girl", Rule("huge", ARTICLE))
    assert report.complete
    assert parse_board(archive.latest("ptt", "Boy-Girl"), str).flags["truncated_by_site"] == 1


def test_pages_that_shift_between_two_requests_lose_nothing(crawl_with: Crawl, scraped: Archive) -> None:
    """Seven rows expire at the old end while the walk goes back: every later row moves to another page."""
    report, archive, running = crawl_with("ptt", "Boy-Girl", Rule("shift", r"ptt/bbs/Boy-Girl/index\d", nth=1))
    assert running.scenario.struck
    listed = sorted(key for kind, key in scraped.histories("ptt", "Boy-Girl") if kind == "article")
    found = {key for kind, key in archive.histories("ptt", "Boy-Girl") if kind == "article"}
    assert set(listed[7:]) <= found
    assert report.new >= len(listed) - 7


def test_an_empty_listing_is_no_success(crawl_with: Crawl, scraped: Archive) -> None:
    report, archive, _ = crawl_with("ptt", "Boy-Girl", Rule("empty", "ptt/bbs/Boy-Girl/index", times=None))
    assert report.outcomes[Outcome.EMPTY_OR_FILTERED.value] == 1
    assert report.refused
    assert report.watermark is None
    again, archive, _ = crawl_with("ptt", "Boy-Girl", archive=archive)
    assert again.complete
    assert archive.digest("ptt", "Boy-Girl") == scraped.digest("ptt", "Boy-Girl")


def test_what_does_not_parse_is_kept_and_stays_due(crawl_with: Crawl, scraped: Archive) -> None:
    """A whole answer that no parser reads: its bytes may be read one day, and the watermark passes it by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ptt_markup, "MAX_DEPTH", 1)  # a parser that is not up to the site any more
        report, archive, _ = crawl_with("ptt", "Boy-Girl")
        assert report.outcomes[Outcome.PARSE_INCOMPLETE.value] == report.due > 0
        found = parse_board(archive.latest("ptt", "Boy-Girl"), str)
        assert len(found.problems) == report.due
    assert parse_board(archive.latest("ptt", "Boy-Girl"), str).problems == [], "the better parser reads the archive"
    again, archive, _ = crawl_with("ptt", "Boy-Girl", archive=archive)
    assert again.complete
    assert archive.digest("ptt", "Boy-Girl") == scraped.digest("ptt", "Boy-Girl")


@pytest.mark.browser
def test_dcard_faults_are_asked_again(crawl_with: Crawl, scraped: Archive) -> None:
    """In-page fetches meet a busy server, a broken connection, a bomb and a limit, each once, in one pass."""
    posts = "dcard/service/api/v2/posts/"
    rules = [
        Rule("500", posts, nth=2),
        Rule("reset", posts, nth=5),
        Rule("429", posts, nth=8, retry_after="0"),
        Rule("gzip_bomb", posts, nth=11),
        Rule("404", posts, nth=14),
    ]
    report, archive, running = crawl_with("dcard", "mood", *rules)
    assert len(running.scenario.struck) == len(rules)
    for outcome in (Outcome.SERVER_BUSY, Outcome.TRUNCATED, Outcome.RATE_LIMITED, Outcome.TOO_LARGE, Outcome.GONE):
        assert report.outcomes[outcome.value] == 1, report.outcomes
    assert report.due == 1, "the bomb alone"
    again, archive, _ = crawl_with("dcard", "mood", archive=archive)
    assert again.complete, again.why
    assert archive.digest("dcard", "mood") == scraped.digest("dcard", "mood")


def test_an_empty_dcard_list_is_no_success(crawl_with: Crawl) -> None:
    report, _, _ = crawl_with("dcard", "mood", Rule("empty", "dcard/service", times=None))
    assert report.outcomes[Outcome.EMPTY_OR_FILTERED.value] == 1
    assert not report.complete


def test_a_dcard_challenge_opens_the_breaker(crawl_with: Crawl) -> None:
    report, _, _ = crawl_with("dcard", "mood", Rule("challenge", "dcard/(service/api/v2/posts|f/mood/p)", times=None))
    assert report.outcomes[Outcome.CHALLENGE.value] == 2, "by fetch, and by the page"
    assert report.refused is False  # the list came
    assert "challenge" in report.stopped


def test_a_threads_login_wall_is_told(crawl_with: Crawl) -> None:
    report, _, _ = crawl_with("threads", "失戀", Rule("login_wall", "threads/search", times=None))
    assert report.outcomes[Outcome.LOGIN_WALL.value] == 1
    assert report.refused
    assert not report.retryable


def test_the_over18_gate_is_passed_once_by_a_browser(crawl_with: Crawl) -> None:
    report, _, running = crawl_with("ptt", "Hate")
    assert report.complete
    assert report.outcomes[Outcome.GATE.value] == 1
    by_browser = [asked for asked in running.asked if asked.from_browser and asked.site == "ptt"]
    assert len([asked for asked in by_browser if "/M." in asked.target]) == 0  # the bulk goes over plain HTTP
    assert any(asked.method == "POST" for asked in by_browser)


@pytest.mark.browser
def test_the_gate_in_a_script_is_passed_too(tiny: Sources, tmp_path: Path) -> None:
    """The site of today serves the list and lets a script ask: plain HTTP never meets it, a browser does."""
    rules = Scenario([Rule("over18_script", "ptt/bbs/Hate", times=None)])
    with serve(tiny_content(), scenario=rules) as running:
        for route in ("browser", "http"):
            sources = tiny.model_copy(update={"ptt": tiny.ptt.model_copy(update={"route": route})})
            archive = Archive(tmp_path / route)
            report = crawl_board("ptt", "Hate", sources, archive, transport=Transport(running.rewrites), log=print)
            assert report.complete, report.why
            assert report.new > 0
        digests = {Archive(tmp_path / route).digest("ptt", "Hate") for route in ("browser", "http")}
    assert len(digests) == 1, "the same bytes by either way"
    questions = [one for one in running.asked if "/ask/over18" in one.target]
    assert {one.from_browser for one in questions} == {True}


@pytest.mark.browser
def test_the_gate_may_close_again(crawl_with: Crawl) -> None:
    report, _, _ = crawl_with("ptt", "Boy-Girl", Rule("over18", ARTICLE, nth=9))
    assert report.complete
    assert report.outcomes[Outcome.GATE.value] == 1


def test_the_budget_ends_a_pass_and_the_next_goes_on(crawl_with: Crawl, scraped: Archive) -> None:
    report, archive, _ = crawl_with("ptt", "Boy-Girl", max_requests=12)
    assert report.stopped.startswith("budget")
    done = report.new
    assert done > 0
    report, archive, _ = crawl_with("ptt", "Boy-Girl", archive=archive)
    assert report.complete
    assert report.new > 0
    assert archive.digest("ptt", "Boy-Girl") == scraped.digest("ptt", "Boy-Girl")


def test_a_deletion_takes_two_looks(crawl_with: Crawl) -> None:
    report, archive, _ = crawl_with("ptt", "Boy-Girl")
    assert report.complete, report.why
    before = archive.digest("ptt", "Boy-Girl")
    gone = r"ptt/bbs/Boy-Girl/M\.1788770906"
    report, archive, _ = crawl_with("ptt", "Boy-Girl", Rule("404", gone), archive=archive)
    assert archive.digest("ptt", "Boy-Girl") == before, "it came back at the second look"
    assert report.gone == 0
    report, archive, _ = crawl_with("ptt", "Boy-Girl", Rule("404", gone, times=None), archive=archive)
    assert report.gone == 1
    assert archive.digest("ptt", "Boy-Girl") != before
    assert not any(capture.key.startswith("M.1788770906") for capture in archive.latest("ptt", "Boy-Girl"))


def test_robots_is_obeyed_unless_the_operator_says_otherwise(tiny: Sources, tmp_path: Path, replica: Replica) -> None:
    strict = tiny.model_copy(update={"threads": tiny.threads.model_copy(update={"allow_robots_disallowed": False})})
    before = len(replica.asked)
    report = crawl_board(
        "threads", "失戀", strict, Archive(tmp_path), transport=Transport(replica.rewrites), log=lambda _: None
    )
    assert report.outcomes[Outcome.ROBOTS_DISALLOWED.value] == 1
    assert [asked.target for asked in list(replica.asked)[before:]] == ["/robots.txt"]


def test_one_board_blocked_one_unchanged(crawl_with: Crawl) -> None:
    _, archive, _ = crawl_with("ptt", "DataScience")
    version = archive.digest("ptt", "DataScience")
    blocked, archive, _ = crawl_with(
        "ptt", "Boy-Girl", Rule("challenge", "ptt/bbs/Boy-Girl", times=None), archive=archive
    )
    unchanged, archive, _ = crawl_with("ptt", "DataScience", archive=archive)
    assert blocked.refused
    assert unchanged.complete
    assert unchanged.new == unchanged.changed == 0
    assert unchanged.digest == version != blocked.digest
