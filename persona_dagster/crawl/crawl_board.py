"""Scrapes one board of one site, and says what came of it: the way in for everything outside this folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Sources
from persona_dagster.crawl.browser import BrowserError
from persona_dagster.crawl.fetcher import BudgetSpentError, CrawlReport, Pass
from persona_dagster.crawl.lease import HostBusyError, lease
from persona_dagster.crawl.pace import HostClosedError
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.walk_dcard import DcardWalk
from persona_dagster.crawl.walk_ptt import PttWalk
from persona_dagster.crawl.walk_threads import ThreadsWalk
from persona_dagster.records import Source

Walk = type[PttWalk] | type[DcardWalk] | type[ThreadsWalk]
WALKS: dict[str, Walk] = {"ptt": PttWalk, "dcard": DcardWalk, "threads": ThreadsWalk}


class DeniedBoardError(ValueError):
    """The board is on the deny-list of config/sources/."""


def crawl_board(
    source: Source,
    board: str,
    sources: Sources,
    archive: Archive,
    *,
    transport: Transport,
    since: datetime | None = None,
    until: datetime | None = None,
    log: Callable[[str], None] = print,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> CrawlReport:
    """One pass: what is new since the last one (or since `since`), then what is due for another look.

    Always returns a report, and what was fetched is stored, whatever ended the pass: budget, refusal, a dead browser.
    Raises `DeniedBoardError`, and `ArchiveDamagedError` when the archive itself cannot be trusted.
    """
    if board in sources.denied_boards:
        raise DeniedBoardError(f"{board} is in denied_boards of config/sources/: it is never scraped")
    site = sources.site(source)
    try:
        with lease(transport.actual(site.origin), transport.leases) as held:
            work = Pass(
                source, board, site=site, archive=archive, transport=transport, lease=held, log=log, clock=clock,
                sleep=sleep,
            )  # fmt: skip
            try:
                WALKS[source](work, since, until).run()
            except BudgetSpentError as error:
                work.report.stopped = f"budget: {error}"
            except HostClosedError as error:
                work.report.stopped = str(error)
            except BrowserError as error:
                work.report.stopped = f"browser: {error}"
            finally:
                report = work.finish()
    except HostBusyError as error:
        return CrawlReport(source, board, stopped=str(error), digest=archive.digest(source, board))
    log(summary(report))
    return report


def summary(report: CrawlReport) -> str:
    outcomes = ", ".join(f"{name} {count}" for name, count in sorted(report.outcomes.items()) if count)
    return (
        f"{report.source}/{report.board}: {report.new} new, {report.changed} changed, {report.unchanged} unchanged, "
        f"{report.gone} gone; {report.requests} requests ({outcomes or 'none'}) in {report.seconds:.1f} s"
        + (f"; stopped: {report.stopped}" if report.stopped else "")
    )
