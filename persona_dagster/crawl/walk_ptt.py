"""PTT: list from the newest page down to what is known, fill the gaps of earlier passes, and go back to the goal.

The listing is walked downwards only. When the board's oldest posts expire, every row moves to a lower page, so a walk
that goes down meets rows twice and never misses one. Page numbers are recomputed from row positions, which are
corrected by posts that are met again; ids, which hold the unix time, are never trusted one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from persona_dagster.crawl.fetcher import Pass
from persona_dagster.crawl.frontier import ANCHORS, BACK, FRESH, TRIES, WEEK, Listed, Span, anchors, meets, middle
from persona_dagster.crawl.outcomes import Fetched
from persona_dagster.records import Outcome
from persona_dagster.sites.parser_results import MalformedError
from persona_dagster.sites.ptt.article import BOARD, parse_article
from persona_dagster.sites.ptt.listing import PAGE_ROWS, Listing, disproof, parse_listing, unix_time

KIND = "article"
ODD = timedelta(days=1).total_seconds()  # an id that lies further in the future says nothing of its time
TURN = PAGE_ROWS  # requests that the way back and the revisits take in turn


class PttWalk:
    def __init__(self, work: Pass, since: datetime | None, until: datetime | None):
        self.work, self.frontier, self.since, self.until = work, work.frontier, since, until
        if not BOARD.fullmatch(work.board):
            raise ValueError(f"{work.board!r} is no PTT board's name")
        self.base = f"{work.site.origin}/bbs/{work.board}"
        self.by_browser = work.site.route == "browser"  # in-page fetches, once a page was opened by navigation
        self.opened = False
        self.last = 0  # number of the newest page
        self.tried: set[int] = set()  # stretches whose next page failed in this pass
        self.placed: set[int] = set()  # stretches whose position was taken in this pass
        self.at: dict[str, int] = {}  # position of each row that this pass has met
        self.joined: set[int] = set()  # stretches whose top is far above what is listed now
        self.cached = False  # whether the last listing was an earlier pass's
        work.client = self.plainly

    def run(self) -> None:
        if self.until:
            self.window(self.since, self.until)
            return
        if not self.head():
            return
        self.catch_up()
        self.work.retry(KIND, self.article)
        self.back_and_again()
        self.work.second_looks(KIND, self.article)
        self.tell()

    def tell(self) -> None:
        if spans := self.frontier.spans():
            self.work.report.watermark = datetime.fromtimestamp(spans[0].newest, UTC).isoformat()

    # Listing

    def head(self) -> bool:
        """The newest page: a new stretch, or the one that is known. False when it could not be had."""
        listing = self.listing(None)
        if listing is None:
            return False
        self.last = (listing.older or 0) + 1
        rows = self.rows(listing)
        now = middle(rows) or int(self.work.board_now)
        self.work.board_now = float(now)
        self.set_goal(now)
        known, keys = self.frontier.spans(), [row.key for row in rows]
        self.work.owe(KIND, rows, FRESH)
        seen, first = self.frontier.note("newest") or {}, (self.last - 1) * PAGE_ROWS
        places = self.places(listing, self.last)
        self.at = {} if self.cached else dict(places)
        with self.frontier.step():
            if known and keys and keys == seen.get("keys"):
                # As at the last pass: so every row of it was read right, and rows kept their place in it.
                self.frontier.shift(seen["first"] - first, known, estimated=True)
                if seen["first"] == first:
                    self.placed |= {span.id for span in known if not span.estimated}
                if self.cached:
                    return True
                top = {key: at for key, at in places.items() if key not in known[0].top}
                known[0].top = anchors({**top, **known[0].top})
                self.frontier.keep(known[0])
            else:
                span = self.frontier.new_span(now, now, first, first + len(listing.positions))
                span.bottom = keys
                span.top = dict(places)
                self.frontier.keep(span)
                self.placed.add(span.id)
                self.settle(span, listing, self.last, rows)
            self.frontier.set_note("newest", {"keys": keys, "first": first})
        return True

    def set_goal(self, now: int) -> None:
        """How far back the board is walked; it only ever moves further back."""
        wanted = now - int(timedelta(days=self.work.site.first_days).total_seconds())
        goals = [wanted, *([int(self.since.timestamp())] if self.since else [])]
        goals += [goal] if (goal := self.frontier.note("goal")) is not None else []
        self.frontier.set_note("goal", min(goals))
        self.frontier.reach(KIND, min(goals))

    def catch_up(self) -> None:
        """What is new: listed, and every gap above what was known before closed."""
        while True:
            self.work.pay(KIND, self.frontier.todo(KIND, FRESH), self.article)
            spans = self.frontier.spans()
            gap = next((pair for pair in pairwise(spans) if self.open(pair[0])), None)
            if gap is None:
                return
            self.extend(*gap, FRESH)

    def back_and_again(self) -> None:
        """The way back to the goal, and revisits, in turn, so that neither starves."""
        back = again = 0
        while True:
            before = self.work.report.requests
            if back <= again or not again:
                moved = self.step_back()
                back += self.work.report.requests - before
                if moved:
                    continue
            if not self.work.revisits(KIND, self.article, TURN):
                if not self.step_back():
                    return
                continue
            again += self.work.report.requests - before

    def step_back(self) -> bool:
        """A listing page further back, with its articles; False at the goal."""
        if todo := self.frontier.todo(KIND, BACK):
            self.work.pay(KIND, todo, self.article, most=TURN)
            return True
        spans, goal = self.frontier.spans(), self.frontier.note("goal")
        for span, lower in zip(spans, [*spans[1:], None], strict=False):
            if self.open(span) and (lower or span.oldest > goal):
                self.extend(span, lower, BACK)
                return True
        return False

    def open(self, span: Span) -> bool:
        """Whether the page below a stretch may be asked for now."""
        return not span.whole and (not span.why or (span.due <= self.work.clock() and span.id not in self.tried))

    def extend(self, span: Span, lower: Span | None, lane: int) -> None:
        """The page below a stretch: proved, its rows owed, and the stretch joined with one below that it meets."""
        if span.id in self.placed:
            number = (span.position - 1) // PAGE_ROWS + 1 if span.position else 0
            if number < 1:
                self.end(span)
                return
            listing, why = self.proved(number)
        else:
            number, listing, why = self.resume(span)
        rows = self.rows(listing) if listing else []
        with self.frontier.step():
            self.work.owe(KIND, rows, lane, self.outside(rows, lane))
            if listing and not why and self.expired(listing, number):
                spans = {one.id: one for one in self.frontier.spans()}
                span, lower = spans[span.id], spans[lower.id] if lower else None
            if listing is None or why:
                self.skip(span, lower, number, why)
                return
            if span.why:
                span.tries, span.due, span.why = 0, 0.0, ""
            span.position, span.estimated = (number - 1) * PAGE_ROWS, False
            if not span.bottom:  # its first page
                span.newest = min(span.newest, middle(rows) or span.newest)
            span.oldest = min(span.oldest, middle(rows) or span.oldest)
            span.bottom = [row.key for row in rows] or span.bottom
            if len(span.top) < ANCHORS and span.id not in self.joined:
                span.top = anchors({**span.top, **self.places(listing, number)})
            self.frontier.keep(span)
            self.settle(span, listing, number, rows)

    def expired(self, listing: Listing, number: int) -> bool:
        """Whether rows expired since this pass met those of the page before: every position is corrected by them, so
        that none is of another moment than the others."""
        if self.cached:
            return False
        here = self.places(listing, number)
        moved = Counter(self.at[key] - at for key, at in here.items() if key in self.at)
        gone = moved.most_common(1)[0][0] if moved else 0
        if gone > 0:
            self.frontier.shift(gone, self.frontier.spans())
            newest = self.frontier.note("newest")
            self.frontier.set_note("newest", {**newest, "first": newest["first"] - gone})
            self.at = {key: at - gone for key, at in self.at.items()}
        self.at |= here
        return gone > 0

    def resume(self, span: Span) -> tuple[int, Listing | None, str]:
        """The page on which a stretch of an earlier pass ends: it shows one of its oldest posts, or lies above them.

        Rows may have expired since its position was taken, so a page is never trusted to follow without an overlap.
        """
        self.placed.add(span.id)
        self.at = {}  # of another moment, for all that is known: what moved since would be counted twice
        number, step = max(1, min((span.position or 0) // PAGE_ROWS + 1, self.last)), 1
        while True:
            listing, why = self.proved(number)
            if listing is None or (why and number < self.last):
                return number, listing, why
            rows = self.rows(listing)
            at, bottom = middle(rows), set(span.bottom)
            if number >= self.last or any(row.key in bottom for row in rows) or (at or 0) >= span.oldest:
                return number, listing, ""
            number, step = min(number + step, self.last), step * 2

    def settle(self, span: Span, listing: Listing, number: int, rows: list[Listed]) -> None:
        """Join a stretch with those below that its newest page meets."""
        keys = [row.key for row in rows]
        if listing.older is None:
            self.end(span)
            return
        at = middle(rows)
        spans = self.frontier.spans()
        for lower in [other for other in spans if other.id != span.id and other.oldest <= span.newest]:
            inside = at is not None and lower.oldest <= at <= lower.newest and self.all_known(lower, rows)
            if not (meets(lower, keys) or inside):
                continue
            here = self.places(listing, number)
            moved = Counter(
                old - new for key, old in lower.top.items() if old is not None and (new := here.get(key)) is not None
            )
            below = [other for other in spans if other.id == lower.id or other.oldest < lower.oldest]
            rows_gone = moved.most_common(1)[0][0] if moved else 0
            self.frontier.shift(rows_gone, below, estimated=True)
            if moved and not rows_gone:  # every position taken since those is right
                self.placed |= {one.id for one in below if not one.estimated}
            for other in [one for one in spans if lower.oldest <= one.oldest and one.id not in (lower.id, span.id)]:
                if other.newest <= span.newest:
                    self.frontier.drop(other)
            merged = self.frontier.merge(span, next(one for one in below if one.id == lower.id))
            self.joined.add(merged.id)
            if span.position is not None and span.position <= (merged.position or 0):  # this page ends no higher
                merged.position, merged.bottom, merged.estimated = span.position, span.bottom, False
                merged.oldest = min(merged.oldest, span.oldest)
                merged.tries, merged.due, merged.why = 0, 0.0, ""
                self.placed.add(merged.id)
                self.frontier.keep(merged)
            return

    def all_known(self, lower: Span, rows: list[Listed]) -> bool:
        """A page within a stretch whose newest posts have all been deleted since."""
        if len(rows) < 2 or not lower.top:
            return len(rows) >= 2 and all(self.was_known(row.key) for row in rows)
        return all(self.was_known(row.key) for row in rows)

    def was_known(self, key: str) -> bool:
        item = self.frontier.item(KIND, key)
        return item is not None and item.state not in ("todo", "outside")

    def end(self, span: Span) -> None:
        """The oldest page there is: whatever was known below has expired, or is in it."""
        for other in self.frontier.spans():
            if other.id != span.id and other.newest <= span.newest:
                self.frontier.drop(other)
        span.whole, span.position = True, 0
        self.frontier.keep(span)

    def skip(self, span: Span, lower: Span | None, number: int, why: str) -> None:
        """A page that cannot be had or proved stays a gap, tried again; what lies below goes on."""
        span.tries += 1
        span.why = f"{self.base}/index{number}.html: {why}"
        waits = WEEK if span.tries >= TRIES else 4 * 4**span.tries
        span.due = self.work.clock() + waits * self.work.cache
        self.tried.add(span.id)
        self.frontier.keep(span)
        first = (number - 1) * PAGE_ROWS  # of the page's rows
        begun = lower is not None and lower.begins is not None and lower.begins > first - PAGE_ROWS
        if number > 1 and not begun:
            self.placed.add(self.frontier.new_span(span.oldest - 1, span.oldest - 1, first, first).id)

    def proved(self, number: int) -> tuple[Listing | None, str]:
        """A listing page and why it is no proof of its rows; asked for a second time when it is none."""
        listing, why = None, ""
        for again in (False, True):
            got = self.listing(number, again)
            if got is None:
                return listing, why or f"{self.work.last_why or 'no answer'}"
            listing, why = got, disproof(got, number, self.work.clock())
            if not why:
                return listing, ""
        return listing, why

    def listing(self, number: int | None, again: bool = False) -> Listing | None:
        """A listing page, the newest when `number` is None; from the archive when an earlier pass had it just now."""
        work, name = self.work, "index" if number is None else f"index{number}"
        history, self.cached = work.history("listing", name), False
        if history and not again and work.fresh("listing", name) and history.newest.outcome == Outcome.OK:
            before = history.newest.fetched_at.timestamp() < work.started
            if before and (stored := work.archive.newest("ptt", work.board, "listing", name)) is not None:
                self.cached = True
                return parse_listing(stored.body, board=work.board)
        fetched = self.ask(f"{self.base}/{name}.html")
        why, outcome = fetched.why or fetched.outcome.value, fetched.outcome
        if fetched.ok:
            try:
                listing = parse_listing(fetched.body, board=work.board)
                if listing.rows:
                    work.keep("listing", name, fetched, counted=False, names=listing.ids)
                    return listing
                why, outcome = "a listing without rows: nothing there, or a ban", Outcome.EMPTY_OR_FILTERED
            except MalformedError as error:
                why, outcome = str(error), Outcome.PARSE_INCOMPLETE
            work.not_parsed(fetched, why, outcome)
        work.last_why = why
        if number is None:
            work.report.stopped = work.report.stopped or f"listing {name}: {outcome.value}: {why}"
        return None

    def rows(self, listing: Listing) -> list[Listed]:
        """Posts of a page, oldest first; a time that cannot be is replaced by the page's own."""
        times = [unix_time(key) for key in listing.ids]
        latest = self.work.clock() + ODD
        sound = sorted(at for at in times if at <= latest)
        usual = sound[(len(sound) - 1) // 2] if sound else int(self.work.board_now)
        return [Listed(key, at if at <= latest else usual) for key, at in zip(listing.ids, times, strict=True)]

    @staticmethod
    def places(listing: Listing, number: int) -> dict[str, int]:
        """Position of each post of a page, newest first."""
        first = (number - 1) * PAGE_ROWS
        return {key: first + at for at, key in reversed(list(enumerate(listing.positions))) if key}

    def outside(self, rows: list[Listed], lane: int) -> frozenset[str]:
        """Of the page on which the goal lies: the posts before it."""
        goal = self.frontier.note("goal")
        if lane == FRESH or goal is None:
            return frozenset()
        before = []
        for row in rows:
            if row.created >= goal:
                break
            before.append(row.key)
        return frozenset(before)

    # A past day

    def window(self, since: datetime | None, until: datetime) -> None:
        """The posts between two moments: their newest page found by bisecting, then downwards. It says nothing of what
        lies between them and now."""
        listing = self.listing(None)
        if listing is None:
            return
        last = (listing.older or 0) + 1
        goal = since.timestamp() if since else until.timestamp() - self.work.site.first_days * 86400
        pages = {last: listing}

        def at(number: int) -> int | None:
            if number not in pages and (found := self.listing(number)) is not None:
                pages[number] = found
            return middle(self.rows(pages[number])) if number in pages else None

        low, high = 1, last
        while low < high:
            half = (low + high) // 2
            probe = next((n for n in range(half, high) if at(n) is not None), None)
            if probe is not None and (at(probe) or 0) <= until.timestamp():
                low = probe + 1
            else:
                high = half
        for number in range(low, 0, -1):
            if at(number) is None and number not in pages:
                self.work.report.stopped = f"listing index{number}: {self.work.last_why}"
                return
            rows = self.rows(pages.pop(number))
            wanted = [row for row in rows if goal < row.created <= until.timestamp()]
            self.work.owe(KIND, wanted, FRESH)
            self.work.pay(KIND, self.frontier.todo(KIND, FRESH), self.article)
            if (middle(rows) or goal + 1) <= goal:
                break
        self.work.second_looks(KIND, self.article)

    # Articles

    def article(self, article_id: str) -> Outcome:
        """Fetch and store one article; what does not advance is still due."""
        fetched = self.ask(f"{self.base}/{article_id}.html")
        if fetched.ok:
            parsed = parse_article(
                fetched.body, board=self.work.board, article_id=article_id, author_key=str, fetched_at=fetched.at
            )
            if not parsed.usable:
                self.work.keep_unread(KIND, article_id, fetched, parsed.why)
                return parsed.outcome
        if fetched.outcome.advances:
            self.work.keep(KIND, article_id, fetched)
        return fetched.outcome

    # Asking

    def ask(self, url: str, how: Callable[..., Fetched] | None = None) -> Fetched:
        """Over plain HTTP; through the browser once for the gate, and for good once HTTP is challenged."""
        return self.work.ask(url, how=self.plainly if how is None else how)

    def plainly(self, url: str) -> Fetched:
        work = self.work
        if self.by_browser and self.opened:
            return work.browser.fetch(url)
        fetched = None
        if not self.by_browser:
            fetched = work.http.fetch(url)
            if fetched.outcome not in (Outcome.GATE, Outcome.CHALLENGE):
                return fetched
            work.count(fetched)
            work.log(f"ptt/{work.board}: {fetched.why}; a browser asks")
            work.pacer.wait()
        passed = work.browser.pass_over18(url)
        work.http.cookies = work.browser.cookies()
        if passed.ok and (self.by_browser or (fetched and fetched.outcome is Outcome.CHALLENGE)):
            self.by_browser = self.opened = True
        return passed
