"""The official API against the replica's: paging, quota, token, and what an empty answer means."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.config.sources import Sources
from persona_dagster.records import Outcome
from persona_dagster.sample.graph_site import TOKEN
from persona_dagster.sample.replica import Replica
from persona_dagster.scraping import threads_api
from persona_dagster.scraping.archive import Archive
from persona_dagster.scraping.crawl import crawl_board
from persona_dagster.scraping.crawling import CrawlReport
from persona_dagster.scraping.parsing import parse_board
from persona_dagster.scraping.transport import Transport


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
    assert list(archive.latest("threads", "沒有這個詞")) == []


def test_the_quota_ends_the_pass(
    tiny: Sources, archive: Archive, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREADS_TOKEN", TOKEN)
    monkeypatch.setattr(threads_api, "LIMIT", 2)
    monkeypatch.setattr(threads_api, "QUOTA", 2)
    report = crawl("失戀", tiny, archive, replica)
    assert "quota" in report.stopped
    assert report.new == 4
