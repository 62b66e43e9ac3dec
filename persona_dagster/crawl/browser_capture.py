"""The capture bridge: what the operator browses in their own browser is archived as it passes.

It listens over the DevTools protocol and does nothing else: no request of its own, no page touched, no challenge
answered. Of the three sites' answers it keeps those with posts, without headers, cookies and query.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.crawl.browser import BrowserError
from persona_dagster.crawl.outcomes import REFUSALS, classify
from persona_dagster.crawl.transport import Transport
from persona_dagster.digest import sha256
from persona_dagster.records import Outcome
from persona_dagster.sites.browser_responses import HOSTS, SAVED, Browsed, browsed, capture_of, parse_browsed
from persona_dagster.sites.parser_results import MAX_BODY

if TYPE_CHECKING:
    from playwright.async_api import Request


@dataclass
class BridgeReport:
    """What was seen while the bridge stood."""

    kept: Counter[str] = field(default_factory=Counter)  # new captures by site
    known: int = 0  # answers that are in the archive already
    denied: int = 0  # of boards on the deny-list
    refused: Counter[str] = field(default_factory=Counter)  # challenges and refusals that the operator was shown
    lost: list[str] = field(default_factory=list)  # answers whose page was left before they were read


class Bridge:
    """Stands beside one browser until `stop` is set or the browser closes."""

    def __init__(
        self,
        archive: Archive,
        transport: Transport,
        denied: Collection[str] = (),
        log: Callable[[str], None] = print,
    ):
        self.archive, self.transport, self.log = archive, transport, log
        self.denied = {board.casefold() for board in denied}
        self.passed = BridgeReport()
        self._reading: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None

    async def run(self, cdp_url: str, stop: asyncio.Event) -> BridgeReport:
        """Raises `BrowserError` where there is no browser at `cdp_url`, and whatever the archive raises."""
        from playwright.async_api import Error, async_playwright

        async with async_playwright() as playwright:
            try:
                browser = await playwright.chromium.connect_over_cdp(cdp_url)
            except Error as error:
                why = error.message.splitlines()[0]
                cure = "start yours with --remote-debugging-port=9222 and a --user-data-dir of its own"
                raise BrowserError(f"no browser answers at {cdp_url}: {why}; {cure}") from error
            browser.on("disconnected", lambda _: stop.set())
            for context in browser.contexts:
                context.on("requestfinished", lambda request: self._finished(request, stop))
            self.log(f"listening at {cdp_url}: browse, and end with Ctrl-C")
            try:
                await stop.wait()
            finally:
                await asyncio.gather(*self._reading, return_exceptions=True)
                with suppress(Error):
                    await browser.close()  # the connection; the browser is the operator's
        if self._failed:
            raise self._failed
        return self.passed

    def _finished(self, request: Request, stop: asyncio.Event) -> None:
        url = self.transport.canonical(request.url)
        if urlsplit(url).hostname not in HOSTS or request.resource_type not in ("document", "fetch", "xhr"):
            return

        def done(task: asyncio.Task[None]) -> None:
            self._reading.discard(task)
            if not task.cancelled() and (error := task.exception()):
                self._failed = error  # what passes from now on would be lost
                stop.set()

        task = asyncio.ensure_future(self._read(url, request))
        self._reading.add(task)
        task.add_done_callback(done)

    async def _read(self, url: str, request: Request) -> None:
        from playwright.async_api import Error

        try:
            answer = await request.response()
            if answer is None or 300 <= answer.status < 400:  # a redirect has no body
                return
            # An answer with comments alone does not say of which board they are; the page that asked for it does.
            places = set(urlsplit(request.frame.url).path.casefold().split("/"))
            body = await answer.body()
        except Error as error:
            self.passed.lost.append(f"{urlsplit(url).path}: {error.message.splitlines()[0]}")
            return
        outcome, why = classify(url, answer.status, answer.headers, body)
        if outcome in REFUSALS:
            self.passed.refused[outcome.value] += 1
            self.log(f"{urlsplit(url).hostname}: {outcome.value}: {why}")
        if outcome is Outcome.OK and len(body) <= MAX_BODY:
            for one in browsed(url, answer.headers.get("content-type", ""), body):
                self._keep(one, places)

    def _keep(self, one: Browsed, places: set[str]) -> None:
        posts = parse_browsed(one.source, one.url, one.body, board="", author_key=str).posts
        if self.denied & (places | {post.board.casefold() for post in posts}):
            self.passed.denied += 1
            return
        key = f"browsed-{sha256(one.body)[:12]}"
        if self.archive.history(one.source, IMPORT_BOARD, SAVED, key):
            self.passed.known += 1
            return
        capture = capture_of(one.source, IMPORT_BOARD, SAVED, key, one.url, one.body, datetime.now(UTC))
        if self.archive.append([capture]):
            self.passed.kept[one.source] += 1
            self.log(f"{one.source}: {len(posts)} posts and comments kept")
