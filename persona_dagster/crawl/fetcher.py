"""One pass over one board: pace, budget, robots and retries around every request; captures into the archive.

What a site's walk asks for goes through `Pass`; the walks themselves (`walk_ptt`, `walk_dcard`, `walk_threads`) only
decide what to ask next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import orjson

from persona_dagster.archive.archive import ROBOTS, WALK, Archive
from persona_dagster.archive.history import History, Sighting
from persona_dagster.archive.parts import without_secrets
from persona_dagster.config.sources import Site
from persona_dagster.crawl.browser import Browser
from persona_dagster.crawl.frontier import FRESH, Frontier, Listed, State
from persona_dagster.crawl.frontier import NAME as FRONTIER
from persona_dagster.crawl.frontier import TRIES as QUARANTINE
from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.lease import Lease
from persona_dagster.crawl.outcomes import REFUSALS, RETRYABLE, Fetched
from persona_dagster.crawl.pace import Pacer
from persona_dagster.crawl.revisits import due_at
from persona_dagster.crawl.robots import Robots
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import UrlPolicy
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, Source
from persona_dagster.sites.parser_results import MalformedError
from persona_dagster.sites.ptt.listing import unix_time

TRIES = 3
BATCH = 20  # captures to a part; until then they stand in the journal
LOG_EVERY = 50  # requests
POSTS = frozenset(["article", "post", "page", "api"])  # kinds of captures that are looked at again


class BudgetSpentError(RuntimeError):
    """Requests or minutes of this pass are used up; what was fetched is stored, the rest stays due."""


@dataclass
class CrawlReport:
    """What a pass did. Only `ok` and `gone` advanced anything; every other outcome is still due."""

    source: Source
    board: str
    outcomes: Counter[str] = field(default_factory=Counter)
    new: int = 0
    changed: int = 0
    gone: int = 0  # confirmed by a second look
    unchanged: int = 0
    requests: int = 0
    bytes: int = 0
    seconds: float = 0.0
    watermark: str | None = None  # up to when the board is known, ISO
    digest: str = ""
    stopped: str = ""  # why the pass ended early; "" when it was finished
    passes_left: float | None = None  # until the goal is reached, at the pace of the last ones; None: not known
    due: int = 0  # posts and gaps that are still owed
    quarantined: list[str] = field(default_factory=list)  # "key: why": given up for a week
    problems: list[str] = field(default_factory=list)  # "URL: outcome: why", the first 20

    @property
    def complete(self) -> bool:
        """Every row that was listed is accounted for: stored, gone, or in quarantine with its reason."""
        return not self.stopped and not self.due

    @property
    def refused(self) -> bool:
        """The pass was stopped, and nothing that was asked for came."""
        return bool(self.stopped) and not any(self.outcomes[name] for name in (Outcome.OK, Outcome.GONE))

    @property
    def retryable(self) -> bool:
        """Another try soon may do better: nobody said no."""
        return not any(self.outcomes[name] for name in (*REFUSALS, Outcome.ROBOTS_DISALLOWED))

    @property
    def why(self) -> str:
        return "; ".join(filter(None, [self.stopped, *self.problems[:3]]))


class Pass:
    """The state of one pass over one board."""

    def __init__(
        self,
        source: Source,
        board: str,
        *,
        site: Site,
        archive: Archive,
        transport: Transport,
        lease: Lease,
        log: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.source, self.board, self.site, self.archive, self.transport = source, board, site, archive, transport
        self.policy = UrlPolicy(site.hosts, transport)
        self.http = HttpFetcher(self.policy, transport, site.pace.max_bytes)
        self.browser = Browser(self.policy, transport, site.pace.max_bytes, log)
        self.pacer = Pacer(site.pace, clock, sleep, next_at=lease.next_at)
        self.robots = Robots(transport.user_agent, self.robots_txt)
        # How a page is had, set by the walk: robots.txt is asked for in the same way as the pages it speaks of.
        self.client: Callable[[str], Fetched] = self.http.fetch
        self.lease, self.log, self.clock = lease, log, clock
        self.started = clock()
        self.report = CrawlReport(source, board)
        if recovered := archive.recover(source, board):
            log(f"{source}/{board}: {recovered} captures of a pass that was cut off are stored now")
        self.journal = archive.journal(source, board)
        self.frontier = open_frontier(archive, source, board)
        self.board_now = float(self.frontier.note("board_now") or 0) or self.started
        self.last_why = ""
        self.suspect = False  # whether the page that is asked for failed before
        self.failed: set[tuple[str, str]] = set()  # pages that failed in this pass
        self.streak: list[tuple[str, str]] = []  # pages that failed in a row, for the first time
        self.waiting: list[Capture] = []

    # Asking

    def ask(
        self,
        url: str,
        *,
        how: Callable[[str], Fetched] | None = None,
        robots: bool = True,
        tries: int = TRIES,
        spare: frozenset[Outcome] = frozenset(),
    ) -> Fetched:
        """One answer, asked politely; again after a failure that may pass. Raises when the pass is over.

        `spare`: outcomes for which the caller has another way, so that they do not close the host. A page that failed
        in an earlier pass is tried once.
        """
        tries = 1 if self.suspect else tries
        if robots and not self.allowed(url):
            return self._refused(url)
        for attempt in range(1, tries + 1):
            self.turn()
            fetched = (how or self.http.fetch)(url)
            self.count(fetched)
            if fetched.outcome not in spare:
                self.pacer.note(fetched.outcome, fetched.headers.get("retry-after"))
            self.lease.next_at = self.pacer.next_at
            if fetched.outcome not in RETRYABLE or attempt == tries or self.pacer.closed:
                break
        if not (self.suspect or fetched.outcome in spare) and fetched.outcome in (RETRYABLE | REFUSALS):
            self.pacer.page_failed(fetched.outcome)
        return fetched

    def allowed(self, url: str) -> bool:
        if self.site.allow_robots_disallowed:
            return True
        verdict = self.robots.allows(url)
        self.pacer.floor = self.robots.delay
        return verdict

    def robots_txt(self) -> Fetched:
        """The site's rules, of the last minutes or asked for now."""
        url = f"{self.site.origin}/robots.txt"
        history = self.history(ROBOTS, ROBOTS)
        if history and self.fresh(ROBOTS, ROBOTS):
            if history.newest.outcome == Outcome.GONE:
                return Fetched(url, Outcome.GONE, 404)
            if stored := self.archive.newest(self.source, self.board, ROBOTS, ROBOTS):
                return Fetched(url, stored.outcome, stored.status, body=stored.body)
        # Only the walk's own client says whether the host is to be left alone.
        fetched = self.ask(url, how=self.client, robots=False, spare=frozenset(Outcome) - {Outcome.CHALLENGE})
        if fetched.outcome.advances:
            self.keep(ROBOTS, ROBOTS, fetched, counted=False)
        return fetched

    def _refused(self, url: str) -> Fetched:
        cure = "set allow_robots_disallowed in config/sources/ if you have the right to"
        fetched = Fetched(url, Outcome.ROBOTS_DISALLOWED, why=self.robots.why or f"robots.txt refuses it; {cure}")
        self.report.outcomes[fetched.outcome.value] += 1
        self.problem(fetched)
        return fetched

    def turn(self) -> None:
        """Waits until the host may be asked. Raises when the pass is over."""
        self._budget()
        self.pacer.wait()
        self.lease.next_at = self.pacer.next_at

    def list_takes_half(self) -> bool:
        """Whether half of the pass is used: a list that must be walked from its top every time leaves the other half to
        the posts that it names, and ends the pass as not complete."""
        pace = self.site.pace
        if 2 * self.report.requests < pace.max_requests and 2 * (self.clock() - self.started) < pace.max_minutes * 60:
            return False
        self.report.stopped = "the list took half of the budget; its rest is due"
        return True

    def _budget(self) -> None:
        pace = self.site.pace
        if self.report.requests >= pace.max_requests:
            raise BudgetSpentError(f"{pace.max_requests} requests (pace.max_requests)")
        if self.clock() - self.started >= pace.max_minutes * 60:
            raise BudgetSpentError(f"{pace.max_minutes:g} minutes (pace.max_minutes)")
        if self.pacer.next_at - self.started > pace.max_minutes * 60:
            raise BudgetSpentError("the host asks to be left alone for longer than this pass may take")

    def count(self, fetched: Fetched) -> None:
        report = self.report
        self.last_why = fetched.why
        report.requests += 1
        report.bytes += len(fetched.body)
        if not fetched.url.endswith("/robots.txt"):
            report.outcomes[fetched.outcome.value] += 1
            if not fetched.outcome.advances:
                self.problem(fetched)
        if report.requests % LOG_EVERY == 0:
            self.log(
                f"{self.source}/{self.board}: {report.requests} requests, {report.new} new, {report.changed} changed, "
                f"{report.unchanged} unchanged"
            )

    def problem(self, fetched: Fetched) -> None:
        if len(self.report.problems) < 20:
            path = urlsplit(fetched.url)
            self.report.problems.append(f"{path.path or fetched.url}: {fetched.outcome.value}: {fetched.why}")

    def not_parsed(self, fetched: Fetched, why: str, outcome: Outcome = Outcome.PARSE_INCOMPLETE) -> None:
        """A page that answered 200 and is not whole: it counts as what it is, and stays due."""
        self.last_why = why
        self.report.outcomes[fetched.outcome.value] -= 1
        self.report.outcomes[outcome.value] += 1
        self.problem(Fetched(fetched.url, outcome, why=why))

    def keep_unread(self, kind: str, key: str, fetched: Fetched, why: str) -> None:
        """A page that came and was not understood: it stays due, and its bytes are kept for a better parser."""
        self.not_parsed(fetched, why)
        self.keep(kind, key, replace(fetched, outcome=Outcome.PARSE_INCOMPLETE), counted=False)

    # Remembering

    def history(self, kind: str, key: str) -> History | None:
        """What was seen of one thing, what waits for the archive included."""
        history = self.archive.history(self.source, self.board, kind, key)
        waiting = [_sighting(one) for one in self.waiting if (one.kind, one.key) == (kind, key)]
        return History([*(history.sightings if history else []), *waiting]) if history or waiting else None

    def fresh(self, kind: str, key: str) -> bool:
        """Seen within the cache time: asking again would only cost the site."""
        history = self.history(kind, key)
        if history is None:
            return False
        age = self.clock() - history.newest.fetched_at.timestamp()
        return age < self.site.pace.cache_minutes * 60

    @property
    def cache(self) -> float:
        """Seconds; the unit of every wait that is longer than a request's."""
        return self.site.pace.cache_minutes * 60

    def keep(self, kind: str, key: str, fetched: Fetched, counted: bool = True, names: Iterable[str] = ()) -> None:
        """Hold a capture for the archive; told apart are new, changed, unchanged and gone. `names`: a list's posts."""
        if counted:
            self._compare(kind, key, fetched)
        capture = replace(self._capture(kind, key, fetched), names=tuple(names))
        self.journal.add(capture)
        self.waiting.append(capture)
        if len(self.waiting) >= BATCH:
            self.flush()

    def _compare(self, kind: str, key: str, fetched: Fetched) -> None:
        report, history = self.report, self.history(kind, key)
        if fetched.outcome is Outcome.GONE:
            report.gone += bool(history and history.newest.outcome == Outcome.GONE and not history.gone)
        elif history is None or history.whole is None:
            report.new += 1
        elif history.whole.sha256 != sha256(fetched.body):
            report.changed += 1
        else:
            report.unchanged += 1

    def _capture(self, kind: str, key: str, fetched: Fetched) -> Capture:
        url, headers = without_secrets(fetched.url, fetched.headers)
        return Capture(
            source=self.source,
            board=self.board,
            kind=kind,
            key=key,
            url=url,
            fetched_at=datetime.fromtimestamp(self.clock(), UTC),
            status=fetched.status,
            outcome=fetched.outcome,
            headers=headers,
            body=fetched.body,
            sha256=sha256(fetched.body),
        )

    # What is owed

    def owe(self, kind: str, rows: Iterable[Listed], lane: int = FRESH, outside: frozenset[str] = frozenset()) -> int:
        """Posts that a list names: each is owed until it is accounted for. Returns how many were not known."""
        return self.frontier.listed(kind, rows, lane, outside)

    def pay(self, kind: str, keys: Iterable[str], fetch: Callable[[str], Outcome], most: int | None = None) -> int:
        """Fetch what is owed; returns the posts attended to."""
        done = 0
        for key in keys:
            if most is not None and done >= most:
                break
            self.attend(kind, key, fetch)
            done += 1
        return done

    def attend(self, kind: str, key: str, fetch: Callable[[str], Outcome]) -> None:
        """One post: fetched by `fetch`, which says what came of it, and entered."""
        item = self.frontier.item(kind, key)
        if item and item.state == "todo" and (history := self.history(kind, key)):
            # Stored by a pass that was killed before it could say so.
            self.enter(kind, key, Outcome(history.newest.outcome))
            return
        self.suspect = bool(item and item.tries)
        try:
            outcome = fetch(key)
        finally:
            suspect, self.suspect = self.suspect, False
        self.enter(kind, key, outcome)
        if outcome.advances or outcome is Outcome.PARSE_INCOMPLETE:
            self.streak = []
        else:
            self.failed.add((kind, key))
            self.streak += [] if suspect else [(kind, key)]
        if self.pacer.closed and not (outcome.advances or outcome is Outcome.PARSE_INCOMPLETE):
            # The host as a whole says no: these pages may be sound.
            for of, name in [*self.streak, (kind, key)]:
                self.frontier.absolve(of, [name])

    def enter(self, kind: str, key: str, outcome: Outcome) -> None:
        """What became of a post, and when it is due again."""
        now, item, history = self.clock(), self.frontier.item(kind, key), self.history(kind, key)
        if not (outcome.advances or outcome is Outcome.PARSE_INCOMPLETE):
            self.frontier.fail(kind, key, self._why(outcome), now, self.cache)
            return
        if history is None:
            return
        created = (item.created if item else 0) or int(history.sightings[0].fetched_at.timestamp())
        if outcome is Outcome.PARSE_INCOMPLETE:
            tries = (item.tries if item else 0) + 1
            state: State = "quarantined" if tries >= QUARANTINE else "unread"
        else:
            tries, state = 0, "gone" if history.newest.outcome == Outcome.GONE else "stored"
        due = self.due_at(history, created)
        why = self._why(outcome) if tries else ""
        self.frontier.settle(kind, key, state, due, created=created, tries=tries, why=why)

    def due_at(self, history: History, created: int) -> float | None:
        at = due_at(history, _moment(created), _moment(self.board_now), timedelta(seconds=self.cache))
        return at.timestamp() if at else None

    def _why(self, outcome: Outcome) -> str:
        return f"{outcome.value}: {self.last_why}"[:200]

    def revisits(self, kind: str, fetch: Callable[[str], Outcome], most: int) -> int:
        """Posts that are due by the ladder, those first whose time is longest past; returns the posts attended to."""
        done = 0
        for key in self.frontier.revisits(kind, self.started, most):
            history, item = self.history(kind, key), self.frontier.item(kind, key)
            due = self.due_at(history, item.created) if history and item else None  # the board may have aged since
            if due is None or due > self.started:
                self.frontier.settle(kind, key, item.state if item else "stored", due)
                done += 1
                continue
            self.attend(kind, key, fetch)
            done += 1
        return done

    def second_looks(self, kind: str, fetch: Callable[[str], Outcome]) -> None:
        """Where no time passes between looks (the replica), a 404 is looked at again at once."""
        if not self.cache:
            for item in list(self.frontier.items("gone")):
                history = self.history(kind, item.key)
                if item.kind == kind and history and not history.gone:
                    self.attend(kind, item.key, fetch)

    def retry(self, kind: str, fetch: Callable[[str], Outcome]) -> None:
        """Pages that failed before and whose time has come."""
        waiting = self.frontier.retries(kind, self.started)
        self.pay(kind, [key for key in waiting if (kind, key) not in self.failed], fetch)

    def flush(self) -> None:
        if self.waiting:
            self.archive.append(self.waiting)
            self.journal.clear()
            self.waiting = []

    def finish(self) -> CrawlReport:
        frontier, report = self.frontier, self.report
        frontier.set_note("board_now", self.board_now)
        frontier.set_note("passed_at", self.clock())
        if report.new:
            frontier.set_note("per_pass", (float(frontier.note("per_pass") or report.new) + report.new) / 2)
        summary = frontier.summary()
        body = orjson.dumps(summary)
        stored = self.archive.newest(self.source, self.board, WALK, WALK)
        if (summary["spans"] or summary["trouble"]) and (stored is None or stored.body != body):
            self.keep(WALK, WALK, Fetched(self.site.origin, Outcome.OK, 200, {}, body), counted=False)
        self.flush()
        self.journal.close()
        self.browser.close()
        self.http.close()
        report.seconds = self.clock() - self.started
        spans, goal = frontier.spans(), float(frontier.note("goal") or 0)
        owed = [span for span in spans if span is not spans[-1] or not (span.whole or span.oldest <= goal)]
        report.due = frontier.count("todo", "failing", "unread") + sum(span.tries < QUARANTINE for span in owed)
        report.quarantined = [f"{item.key}: {item.why}" for item in frontier.items("quarantined")]
        report.quarantined += [span.why for span in owed if span.tries >= QUARANTINE]
        report.passes_left = frontier.standing(self.clock()).passes_left
        frontier.close()
        report.digest = self.archive.digest(self.source, self.board)
        return report


def open_frontier(archive: Archive, source: Source, board: str) -> Frontier:
    """The board's frontier; one that was lost is made again from what the archive holds."""
    frontier = Frontier(archive.place(source, board, FRONTIER))
    if not frontier.unbuilt:
        return frontier
    record = archive.newest(source, board, WALK, WALK)
    summary = orjson.loads(record.body) if record else {}
    with frontier.step():
        for kind, key, history in archive.index(source, board).histories():
            if kind in POSTS:
                seen = history.newest
                state: State = "gone" if seen.outcome == Outcome.GONE else "stored"
                state = "unread" if history.best is None and not history.gone else state
                at = history.sightings[0].fetched_at.timestamp()
                frontier.settle(kind, key, state, at, created=_created(kind, key) or int(at))
        if "spans" in summary:
            frontier.restore(summary)
        kind = {"ptt": "article", "dcard": "post"}.get(source, "page")
        named = archive.index(source, board).names()
        frontier.listed(kind, [Listed(name, _created(kind, name)) for name in named], FRESH)
        for key in summary.get("missed", []):  # as 0.1 wrote it
            frontier.listed("post" if source == "dcard" else "page", [Listed(key, 0)], FRESH)
        frontier.built()
    return frontier


def _created(kind: str, key: str) -> int:
    """Unix seconds where the id tells, 0 where it does not."""
    try:
        return unix_time(key) if kind == "article" else 0
    except MalformedError:
        return 0


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(seconds, 0), UTC)


def _sighting(capture: Capture) -> Sighting:
    return Sighting(
        capture.kind, capture.key, capture.url, capture.fetched_at, capture.status, capture.outcome.value,
        capture.sha256, True, "", 0,
    )  # fmt: skip
