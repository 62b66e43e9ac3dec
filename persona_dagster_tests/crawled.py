"""The replica for all scraping tests, and pages from it: real shapes with our own words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.fetcher import CrawlReport
from persona_dagster.crawl.transport import Transport
from persona_dagster.sample.clock import Clock
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return load_sources(tmp_path_factory.mktemp("no-config"), "tiny")


@pytest.fixture(scope="session")
def replica() -> Iterator[Replica]:
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def scraped(replica: Replica, tiny: Sources, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One pass over one board of each site."""
    archive = Archive(tmp_path_factory.mktemp("scraped"))
    for source, board in (("ptt", "Boy-Girl"), ("dcard", "mood"), ("threads", "失戀")):
        report = crawl_board(source, board, tiny, archive, transport=Transport(replica.rewrites), log=lambda _: None)
        assert report.complete, report.why
    return archive


@pytest.fixture(autouse=True)
def own_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica's port is soon another one's: what a test was told to wait must not outlive it."""
    monkeypatch.setattr("persona_dagster.crawl.lease.lease_folder", lambda: tmp_path / "leases")


Crawl = Callable[..., tuple[CrawlReport, Archive, Replica]]


@pytest.fixture
def crawl_with(tiny: Sources, tmp_path: Path) -> Iterator[Crawl]:
    """Crawl a fresh replica that misbehaves by rules: `crawl_with("ptt", "Boy-Girl", Rule("429", …))`."""

    def crawl(source: str, board: str, *rules: Rule, archive: Archive | None = None, **pace: float):
        archive = archive or Archive(tmp_path / "raw")
        site = tiny.site(source)  # type: ignore[arg-type]
        sources = tiny.model_copy(update={source: site.model_copy(update={"pace": site.pace.model_copy(update=pace)})})
        with serve(clock=Clock(), scenario=Scenario(rules)) as running:
            report = crawl_board(
                source, board, sources, archive, transport=Transport(running.rewrites), log=lambda _: None
            )
        return report, archive, running

    yield crawl
