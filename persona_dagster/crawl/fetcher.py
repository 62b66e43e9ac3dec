"""One pass over one board: pace, budget, robots and retries around every request; captures into the archive.

What a site's walk asks for goes through `Pass`; the walks themselves (`walk_ptt`, `walk_dcard`, `walk_threads`) only
decide what to ask next.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import orjson

from persona_dagster.archive.archive import ROBOTS, WALK, Archive
from persona_dagster.archive.history import History
from persona_dagster.archive.parts import without_secrets
from persona_dagster.config.sources import Site
from persona_dagster.crawl.browser import Browser
from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.lease import Lease
from persona_dagster.crawl.outcomes import REFUSALS, RETRYABLE, Fetched
from persona_dagster.crawl.pace import Pacer
from persona_dagster.crawl.policy import UrlPolicy
from persona_dagster.crawl.revisits import due_at
from persona_dagster.crawl.robots import Robots
from persona_dagster.crawl.transport import Transport
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, Source

TRIES = 3
BATCH = 20  # captures to a part; until then they stand in the journal
LOG_EVERY = 50  # requests


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
    due: int = 0  # left for the next pass
    problems: list[str] = field(default_factory=list)  # "URL: outcome: why", the first 20

    @property
    def complete(self) -> bool:
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
        self.browser = Browser(self.policy, transport, site.pace.max_bytes)
        self.pacer = Pacer(site.pace, clock, sleep, next_at=lease.next_at)
        self.robots = Robots(transport.user_agent, self.robots_txt)
        self.lease, self.log, self.clock = lease, log, clock
        self.started = clock()
        self.report = CrawlReport(source, board)
        if recovered := archive.recover(source, board):
            log(f"{source}/{board}: {recovered} captures of a pass that was cut off are stored now")
        self.journal = archive.journal(source, board)
        self.histories = archive.histories(source, board)
        self.waiting: list[Capture] = []

    # Asking

    def ask(
        self,
        url: str,
        *,
        how: Callable[[str], Fetched] | None = None,
        robots: bool = True,
        tries: int = TRIES,
        spare: Outcome | None = None,
    ) -> Fetched:
        """One answer, asked politely; again after a failure that may pass. Raises when the pass is over.

        `spare`: the outcome for which the caller has another way, so that it does not close the host.
        """
        if robots and not self.allowed(url):
            return self._refused(url)
        for attempt in range(1, tries + 1):
            self._budget()
            self.pacer.wait()
            self.lease.next_at = self.pacer.next_at
            fetched = (how or self.http.fetch)(url)
            self.count(fetched)
            if fetched.outcome is not spare:
                self.pacer.note(fetched.outcome, fetched.headers.get("retry-after"))
            self.lease.next_at = self.pacer.next_at
            if fetched.outcome not in RETRYABLE or attempt == tries or self.pacer.closed:
                return fetched
        raise AssertionError("unreachable")

    def allowed(self, url: str) -> bool:
        if self.site.allow_robots_disallowed:
            return True
        verdict = self.robots.allows(url)
        self.pacer.floor = self.robots.delay
        return verdict

    def robots_txt(self) -> Fetched:
        """The site's rules, of the last minutes or asked for now."""
        url = f"{self.site.origin}/robots.txt"
        if self.fresh(ROBOTS, ROBOTS):
            stored = self.archive.newest(self.source, self.board, ROBOTS, ROBOTS)
            if stored and stored.fetched_at == self.histories[ROBOTS, ROBOTS].newest.fetched_at:
                return Fetched(url, stored.outcome, stored.status, body=stored.body)
            return Fetched(url, Outcome.GONE, 404)
        fetched = self.ask(url, robots=False)
        if fetched.outcome.advances:
            self.keep(ROBOTS, ROBOTS, fetched, counted=False)
        return fetched

    def _refused(self, url: str) -> Fetched:
        cure = "set allow_robots_disallowed in sources.yaml if you have the right to"
        fetched = Fetched(url, Outcome.ROBOTS_DISALLOWED, why=self.robots.why or f"robots.txt refuses it; {cure}")
        self.report.outcomes[fetched.outcome.value] += 1
        self.problem(fetched)
        return fetched

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
        self.report.outcomes[fetched.outcome.value] -= 1
        self.report.outcomes[outcome.value] += 1
        self.problem(Fetched(fetched.url, outcome, why=why))

    def keep_unread(self, kind: str, key: str, fetched: Fetched, why: str) -> None:
        """A page that came and was not understood: it stays due, and its bytes are kept for a better parser."""
        self.not_parsed(fetched, why)
        self.keep(kind, key, replace(fetched, outcome=Outcome.PARSE_INCOMPLETE), counted=False)

    # Remembering

    def history(self, kind: str, key: str) -> History | None:
        return self.histories.get((kind, key))

    def fresh(self, kind: str, key: str) -> bool:
        """Seen within the cache time: asking again would only cost the site."""
        history = self.history(kind, key)
        if history is None:
            return False
        age = self.clock() - history.newest.fetched_at.timestamp()
        return age < self.site.pace.cache_minutes * 60

    def keep(self, kind: str, key: str, fetched: Fetched, counted: bool = True) -> None:
        """Hold a capture for the archive; told apart are new, changed, unchanged and gone."""
        if counted:
            self._compare(kind, key, fetched)
        capture = self._capture(kind, key, fetched)
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

    def missed(self, kind: str) -> set[str]:
        """Posts that earlier passes were told of and could not fetch.

        A list that is walked down to what is known would not name them again.
        """
        record = self.archive.newest(self.source, self.board, WALK, WALK)
        names = orjson.loads(record.body)["missed"] if record else []
        return {name for name in names if not self.history(kind, name)}

    def fetch_listed(self, kind: str, names: list[str], fetch: Callable[[str], bool]) -> None:
        """Each with `fetch`, which says whether it is done; what is not is written down at once."""
        missed = self.missed(kind)
        for name in names:
            done = fetch(name)
            self.report.due += not done
            now = missed - {name} if done else missed | {name}
            if now != missed:
                body = orjson.dumps({"missed": sorted(now)})
                self.keep(WALK, WALK, Fetched(self.site.origin, Outcome.OK, 200, {}, body), counted=False)
            missed = now

    def due(self, kind: str, created: Callable[[str, History], datetime], only_audits: bool = False) -> list[str]:
        """Keys to look at again, those first whose time is longest past. With `only_audits`, second looks at a 404."""
        self.flush()
        self.histories = self.archive.histories(self.source, self.board)
        now, began = (datetime.fromtimestamp(at, UTC) for at in (self.clock(), self.started))
        cache = timedelta(minutes=self.site.pace.cache_minutes)
        of_kind = {key: history for (name, key), history in self.histories.items() if name == kind}
        ages = {key: created(key, history) for key, history in of_kind.items()}
        board_now = max(ages.values(), default=now)
        waiting = []
        for key, history in of_kind.items():
            audit = history.newest.outcome == Outcome.GONE
            seen_now = history.newest.fetched_at >= began
            if (seen_now or only_audits) and not (only_audits and audit):
                continue
            at = due_at(history, ages[key], board_now, cache)
            if at is not None and at <= now:
                waiting.append((at, key))
        return [key for _, key in sorted(waiting)]

    def flush(self) -> None:
        if self.waiting:
            self.archive.append(self.waiting)
            self.journal.clear()
            self.waiting = []

    def finish(self) -> CrawlReport:
        self.flush()
        self.journal.close()
        self.browser.close()
        self.http.pool.clear()
        self.report.seconds = self.clock() - self.started
        self.histories = {}  # the digest reads them anew: not both at once
        self.report.digest = self.archive.digest(self.source, self.board)
        return self.report
