"""When one host may be asked next: a token bucket of one, jitter, Retry-After, back-off, and a circuit breaker.

Time comes in from outside, so that ten thousand schedules can be tried without waiting.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from persona_dagster.config.sources import Pace
from persona_dagster.crawl.outcomes import REFUSALS, RETRYABLE
from persona_dagster.records import Outcome

MAX_WAIT = 3600.0  # seconds: what a host may ask of us at once; more ends the pass
BACKOFF = 2.0  # intervals, doubling with each failure in a row
PAGES = 4  # that fail in a row, each after its tries: then it is the host, and it is left alone
REFUSED = 3  # the same for pages that it refuses
OPENS_AT_ONCE = frozenset([Outcome.CHALLENGE, Outcome.LOGIN_WALL])


class HostClosedError(RuntimeError):
    """The breaker is open: the host refused, or fails, and is not asked again in this pass."""

    def __init__(self, outcome: Outcome, why: str):
        super().__init__(f"{outcome.value}: {why}")
        self.outcome = outcome


@dataclass
class Pacer:
    """`wait()` before each request, `note()` after it. `next_at` is wall-clock seconds and outlives the process."""

    pace: Pace
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    rng: random.Random = field(default_factory=random.Random)
    next_at: float = 0.0
    floor: float = 0.0  # seconds: the site's own Crawl-delay
    failures: int = 0  # tries in a row, for the back-off
    pages: int = 0  # pages in a row
    closed: HostClosedError | None = None

    @property
    def interval(self) -> float:
        return max(1.0 / self.pace.requests_per_second, self.floor)

    def wait(self) -> None:
        """Sleeps until the host may be asked, and takes the token. Raises `HostClosedError`."""
        if self.closed:
            raise self.closed
        while (left := self.next_at - self.clock()) > 0:
            # A clock that was set back must not stop us for a year.
            if left > MAX_WAIT:
                self.next_at = self.clock() + MAX_WAIT
            self.sleep(min(left, MAX_WAIT))
        self.next_at = self.clock() + self.interval * (1 + self.pace.jitter * self.rng.random())

    def note(self, outcome: Outcome, retry_after: str | None = None) -> None:
        """Take in what came of a request; may put off the next one, or close the host."""
        if outcome not in RETRYABLE and outcome not in REFUSALS:
            self.failures = self.pages = 0
            return
        self.failures += 1
        if outcome in OPENS_AT_ONCE:
            self.close(outcome, "refused; not asked again in this pass")
        asked = seconds_to_wait(retry_after, self.clock()) if retry_after else None
        if asked is not None and asked > MAX_WAIT:
            self.close(outcome, f"the host asks to wait {asked:.0f} s; later runs will")
        pause = asked if asked is not None else self.interval * BACKOFF ** min(self.failures, 12)
        self.next_at = max(self.next_at, self.clock() + min(pause, MAX_WAIT))

    def page_failed(self, outcome: Outcome) -> None:
        """A page that never failed before could not be had. One such page says nothing of the host, several in a row
        do; pages that are known to fail are not counted."""
        self.pages += 1
        if self.pages >= (REFUSED if outcome is Outcome.BLOCKED else PAGES):
            self.close(outcome, f"{self.pages} pages in a row")

    def close(self, outcome: Outcome, why: str) -> None:
        self.closed = self.closed or HostClosedError(outcome, why)


def seconds_to_wait(value: str, now: float) -> float | None:
    """Retry-After as seconds from `now`: a number, or an HTTP date in any of its three forms; None for neither."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:12])
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.fromtimestamp(now, UTC)).total_seconds())
