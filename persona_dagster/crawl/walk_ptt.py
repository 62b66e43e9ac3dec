"""PTT: walk the listing back to what is known, then fetch the articles oldest first, then look again at what is due.

Cursors are article ids, which hold the unix time, never page numbers: pages shift when the oldest posts expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson

from persona_dagster.archive.archive import WALK
from persona_dagster.archive.history import History
from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.records import Outcome
from persona_dagster.sites.parsed import MalformedError
from persona_dagster.sites.ptt.article import BOARD, parse_article
from persona_dagster.sites.ptt.listing import Listing, parse_listing, unix_time

KNOWN_PAGES = 2  # in a row before the walk stops: rows shift to the next page while one walks
BACK_PAGES = 30  # further back than that (600 posts), bisecting finds the start with fewer requests


def ids(page: Listing) -> list[str]:
    """The articles that a page lists, pinned ones left out: their ids are older than the page."""
    return [row.article_id for row in page.articles if row.article_id]


class PttWalk:
    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.since, self.until = work, since, until
        if not BOARD.fullmatch(work.board):
            raise ValueError(f"{work.board!r} is no PTT board's name")
        self.base = f"{work.site.origin}/bbs/{work.board}"
        self.by_browser = False  # in-page fetches, once a page was opened by navigation
        self.newest = 0  # unix time of the newest article listed

    def run(self) -> None:
        page = self.listing(None)
        if page is not None:
            self.newest = max((unix_time(row) for row in ids(page)), default=0)
            self.fetch_new(page)
        self.revisit()
        if not self.work.site.pace.cache_minutes:
            self.revisit(only_audits=True)  # the day that an audit waits is no time here

    # Discovery

    def batches(self, page: Listing) -> Iterator[list[str]]:
        """Articles not known yet, oldest first over all batches, down to the watermark (or `since`)."""
        bound = self.bound()
        near = None if self.until else self.walk_back(page, bound)
        if near is not None:
            yield self.unknown(near, bound)
            return
        last = (page.older or 0) + 1
        first = number = self.bisect(bound, last)
        begins: str | None = None
        while number <= last:
            found = self.listing(number if number < last else None)
            if found is None:
                return
            begins = begins or next(iter(ids(found)), None)
            yield self.unknown(ids(found), bound)
            if self.until and any(unix_time(row) > self.until.timestamp() for row in ids(found)):
                break
            number += 1
        again = self.listing(first if first < last else None)
        if again is None or begins not in ids(again):
            # The oldest posts expired meanwhile, and rows moved to pages that were behind us.
            self.work.report.stopped = "the listing moved during the walk; the next pass looks at it again"

    def walk_back(self, page: Listing, bound: int) -> list[str] | None:
        """Ids from the newest page back to `bound`; None when that is further than a few pages."""
        found: dict[str, None] = {}
        below = 0
        for _ in range(BACK_PAGES):
            found.update(dict.fromkeys(ids(page)))
            below = below + 1 if all(unix_time(row) <= bound for row in ids(page)) else 0
            if below >= KNOWN_PAGES or page.older is None:
                return list(found)
            older = self.listing(page.older)
            if older is None:
                return list(found)
            page = older
        return None

    def unknown(self, listed: list[str], bound: int) -> list[str]:
        return sorted(
            (row for row in set(listed) if self.wanted(row, bound) and not self.work.history("article", row)),
            key=unix_time,
        )

    def wanted(self, article_id: str, bound: int) -> bool:
        at = unix_time(article_id)
        return at > bound and (self.until is None or at <= self.until.timestamp())

    def bound(self) -> int:
        """Unix time: nothing older is asked for."""
        if self.since:
            return int(self.since.timestamp())
        if mark := self.watermark():
            return mark
        return self.newest - int(timedelta(days=self.work.site.first_days).total_seconds())

    def watermark(self) -> int:
        """Up to when everything is known, from the newest of our own records; 0 when the board is new."""
        record = self.work.archive.newest("ptt", self.work.board, WALK, WALK)
        return int(orjson.loads(record.body)["known_until"]) if record else 0

    def bisect(self, moment: int, newest_page: int) -> int:
        """Number of the first listing page that reaches past `moment`: log2 of the pages, not all of them."""
        low, high = 1, newest_page
        while low < high:
            middle = (low + high) // 2
            page = self.listing(middle)
            if page and max(map(unix_time, ids(page)), default=0) >= moment:
                high = middle
            else:
                low = middle + 1
        return low

    def listing(self, number: int | None) -> Listing | None:
        """A listing page, the newest when `number` is None; from the archive when it was fetched a moment ago."""
        name = "index" if number is None else f"index{number}"
        if self.work.fresh("listing", name):
            stored = self.work.archive.newest("ptt", self.work.board, "listing", name)
            if stored is not None:
                return parse_listing(stored.body)
        fetched = self.ask(f"{self.base}/{name}.html")
        if not fetched.ok:
            self.work.report.stopped = self.work.report.stopped or f"listing {name}: {fetched.outcome.value}"
            return None
        try:
            listing = parse_listing(fetched.body)
        except MalformedError as error:
            self.work.not_parsed(fetched, str(error))
            self.work.report.stopped = f"listing {name} did not parse: {error}"
            return None
        if not listing.rows:
            self.work.not_parsed(fetched, "a listing without rows: nothing there, or a ban", Outcome.EMPTY_OR_FILTERED)
            self.work.report.stopped = f"listing {name} is empty: nothing there, or a ban"
            return None
        self.work.keep("listing", name, fetched, counted=False)
        return listing

    # Articles

    def fetch_new(self, page: Listing) -> None:
        """Oldest first, so that a pass cut short leaves no hole: the watermark stops before the first failure."""
        start = reached = self.watermark()
        whole, finished = True, False
        try:
            for batch in self.batches(page):
                for article_id in batch:
                    outcome = self.article(article_id)
                    self.work.report.due += not outcome.advances
                    # What was kept unread is known by name, and comes again by the ladder.
                    whole = whole and (outcome.advances or outcome is Outcome.PARSE_INCOMPLETE)
                    if whole:
                        reached = max(reached, unix_time(article_id))
            finished = True
        finally:
            self.work.flush()
            if self.work.report.stopped:
                reached = start  # the listing was not seen whole: what lies below may have a hole
            elif finished and whole:
                reached = max(reached, self.newest)
            if not (self.since or self.until):  # those look at a part that says nothing of the rest
                self.mark(start, reached)

    def mark(self, start: int, reached: int) -> None:
        """Store the watermark, after the articles below it."""
        if reached:
            self.work.report.watermark = datetime.fromtimestamp(reached, UTC).isoformat()
        if reached > start:
            body = orjson.dumps({"known_until": reached})
            self.work.keep(WALK, WALK, Fetched(f"{self.base}/index.html", Outcome.OK, 200, {}, body), counted=False)
            self.work.flush()

    def article(self, article_id: str) -> Outcome:
        """Fetch and store one article; what does not advance is still due."""
        fetched = self.ask(f"{self.base}/{article_id}.html")
        if fetched.ok:
            parsed = parse_article(
                fetched.body, board=self.work.board, article_id=article_id, author_key=str, fetched_at=fetched.at
            )
            if not parsed.usable:
                self.work.keep_unread("article", article_id, fetched, parsed.why)
                return parsed.outcome
        if fetched.outcome.advances:
            self.work.keep("article", article_id, fetched)
        return fetched.outcome

    def revisit(self, only_audits: bool = False) -> None:
        """Articles that are due by the ladder."""
        for article_id in self.work.due("article", self.posted, only_audits):
            self.work.report.due += not self.article(article_id).advances

    @staticmethod
    def posted(article_id: str, _history: History) -> datetime:
        return datetime.fromtimestamp(unix_time(article_id), UTC)

    def ask(self, url: str) -> Fetched:
        """Over plain HTTP; through the browser once for the gate, and for good once HTTP is challenged."""
        work = self.work
        if self.by_browser:
            return work.ask(url, how=work.browser.fetch)
        if work.site.route != "browser":
            fetched = work.ask(url, spare=Outcome.CHALLENGE)
            if fetched.outcome not in (Outcome.GATE, Outcome.CHALLENGE):
                return fetched
            work.log(f"ptt/{work.board}: {fetched.why}; a browser asks")
        passed = work.ask(url, how=work.browser.pass_over18)
        work.http.cookies = work.browser.cookies()
        for_good = work.site.route == "browser" or fetched.outcome is Outcome.CHALLENGE
        self.by_browser = passed.ok and for_good
        return passed
