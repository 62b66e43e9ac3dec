"""The official API against the replica's: paging, quota, token, and what an empty answer means."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.crawl import threads_account, threads_api
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.fetcher import CrawlReport
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.crawl.threads_account import Account
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import Outcome
from persona_dagster.sample.content_loader import Content
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sample.threads_api_site import TOKEN
from persona_dagster_tests.sample.conftest import threads_item


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def crawl(board: str, tiny: Sources, archive: Archive, replica: Replica) -> CrawlReport:
    live = tiny.threads.model_copy(update={"route": "api", "allow_robots_disallowed": False})
    sources = tiny.model_copy(update={"threads": live})
    return crawl_board("threads", board, sources, archive, transport=Transport(replica.rewrites), log=lambda _: None)


def test_keyword_pages(tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 3)
    report = crawl("失戀", tiny, archive, replica)
    assert report.complete, report.why
    posts = parse_board(archive.latest("threads", "失戀"), str).posts
    assert report.new == len(posts) > 3
    assert all(post.post_id and post.url.startswith("https://www.threads.com/@<user>/post/") for post in posts)
    stored = b"".join(one.body for one in archive.every("threads", "失戀"))
    assert TOKEN.encode() not in stored
    assert not any(TOKEN in one.url for one in archive.every("threads", "失戀"))


def test_without_a_token_nothing_is_asked(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THREADS_TOKEN", raising=False)
    before = len(replica.asked)
    report = crawl("失戀", tiny, archive, replica)
    assert report.refused
    assert not report.retryable
    assert "THREADS_TOKEN" in report.why
    assert len(replica.asked) == before


def test_a_wrong_token_is_told_in_the_sites_words(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", "expired")
    report = crawl("失戀", tiny, archive, replica)
    assert report.refused
    assert "session has been invalidated" in report.why


def test_empty_is_empty_or_filtered(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    report = crawl("沒有這個詞", tiny, archive, replica)
    assert report.outcomes[Outcome.EMPTY_OR_FILTERED.value] == 1
    assert report.new == 0
    assert not report.complete
    assert list(archive.latest("threads", "沒有這個詞")) == []


def test_the_quota_ends_the_pass(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 2)
    monkeypatch.setattr(threads_account, "QUOTA", 2)
    report = crawl("失戀", tiny, archive, replica)
    assert "quota" in report.stopped
    assert report.new == 4


def test_an_account_is_read_through_the_profile_search(
    tiny: Sources, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 1)
    user, items = "writer.one", [threads_item(n, user="writer.one" if n % 2 else "other") for n in range(8)]
    with serve(Content({}, {}, {"失戀": items})) as running:
        report = crawl(f"@{user}", tiny, archive, running)
        asked = [item.target for item in running.asked]
    assert report.complete, report.why
    assert all("/profile_posts?" in target and f"username={user}" in target for target in asked)
    posts = parse_board(archive.latest("threads", f"@{user}"), str).posts
    assert report.new == len(posts) == len(asked) == 4, "one row a page"
    assert {post.author_key for post in posts} == {user}
    assert TOKEN not in "".join(asked), "the token travels in a header"


def test_the_quota_is_the_users_over_all_boards_and_routes(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three queries of yesterday evening count this morning, whatever was asked; those of two days ago do not."""
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 5)
    monkeypatch.setattr(threads_account, "QUOTA", 3)
    first = crawl("失戀", tiny, archive, replica)
    assert "quota" in first.stopped
    before = len(replica.asked)
    assert "quota" in crawl("失戀", tiny, archive, replica).stopped
    assert "quota" in crawl("職場", tiny, archive, replica).stopped
    assert "quota" in crawl("@someone", tiny, archive, replica).stopped
    assert len(replica.asked) == before, "nothing is asked on a spent quota"
    live = tiny.threads.model_copy(update={"route": "api", "allow_robots_disallowed": False})
    later = crawl_board(
        "threads", "失戀", tiny.model_copy(update={"threads": live}), archive,
        transport=Transport(replica.rewrites), log=lambda _: None, clock=lambda: time.time() + 25 * 3600,
    )  # fmt: skip
    assert later.requests > 0


def test_a_spent_quota_on_their_side_is_told(tiny: Sources, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    with serve(scenario=Scenario([Rule("429", "graph/", times=None, retry_after="7200")])) as limited:
        report = crawl("失戀", tiny, archive, limited)
    assert report.outcomes[Outcome.RATE_LIMITED.value] >= 1
    assert report.refused


def test_what_the_quota_cut_off_is_asked_for_by_its_time(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 5)
    everything = crawl("失戀", tiny, Archive("memory://threads-whole"), replica).new
    whole = set[str]()
    for day in range(20):
        monkeypatch.setattr(threads_account, "QUOTA", 3)
        live = tiny.threads.model_copy(update={"route": "api", "allow_robots_disallowed": False})
        report = crawl_board(
            "threads", "失戀", tiny.model_copy(update={"threads": live}), archive,
            transport=Transport(replica.rewrites), log=lambda _: None,
            clock=lambda day=day: time.time() + (day + 2) * 25 * 3600,
        )  # fmt: skip
        whole = {key for kind, key in archive.histories("threads", "失戀") if kind == "api"}
        if report.complete:
            break
    assert report.complete, report.why
    assert len(whole) == everything


def test_the_token_is_renewed_before_it_ends_and_kept_to_its_owner(
    replica: Replica, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", "given")
    now = [1_000_000.0]
    asked: list[str] = []

    def fetch(url: str) -> Fetched:
        asked.append(url)
        return Fetched(url, Outcome.OK, 200, {}, b'{"access_token": "renewed", "expires_in": 5184000}')

    account = Account(tmp_path / "accounts", lambda: now[0])
    assert (account.renew(fetch), asked, account.token) == ("", [], "given"), "not before a week"
    now[0] += 8 * 86_400
    account = Account(tmp_path / "accounts", lambda: now[0])
    assert account.renew(fetch) == ""
    assert "grant_type=th_refresh_token" in asked[0]
    account = Account(tmp_path / "accounts", lambda: now[0])
    assert (account.token, round(account.days_left)) == ("renewed", 60)
    assert account.path.stat().st_mode & 0o077 == 0
    monkeypatch.setenv("THREADS_TOKEN", "another")
    assert Account(tmp_path / "accounts", lambda: now[0]).token == "another"
