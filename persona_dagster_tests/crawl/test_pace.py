"""No request before its time, whatever the answers; one crawl a host; the budget is kept."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
from email.utils import format_datetime
from pathlib import Path

import pytest

from persona_dagster.config.sources import Pace
from persona_dagster.crawl.lease import HostBusyError, Lease, lease
from persona_dagster.crawl.pace import MAX_WAIT, PAGES, REFUSED, HostClosedError, Pacer, seconds_to_wait
from persona_dagster.records import Outcome

SCHEDULES, SOAK_SCHEDULES = 500, 10_000
OUTCOMES = [
    *([Outcome.OK] * 12),
    Outcome.GONE,
    Outcome.SERVER_BUSY,
    Outcome.TIMEOUT,
    Outcome.RATE_LIMITED,
    Outcome.CHALLENGE,
]


class FakeTime:
    def __init__(self, rng: random.Random):
        self.now, self.rng = 1_800_000_000.0, rng

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        # Sleeps end early now and then, as after a signal.
        self.now += seconds * self.rng.choice([1, 1, 1, 0.3]) + 1e-6


def test_no_request_before_its_time(soak: bool) -> None:
    for seed in range(SOAK_SCHEDULES if soak else SCHEDULES):
        rng = random.Random(seed)
        clock = FakeTime(rng)
        pace = Pace(requests_per_second=rng.choice([0.2, 1, 5, 500]), jitter=rng.random())
        pacer = Pacer(pace, clock, clock.sleep, random.Random(seed), next_at=clock.now + rng.choice([0, 0, 7, -3]))
        earliest = pacer.next_at
        for _ in range(rng.randrange(1, 60)):
            try:
                pacer.wait()
            except HostClosedError:
                break
            assert clock.now >= earliest - 1e-6, f"seed {seed}: {earliest - clock.now} s early"
            sent = clock.now
            clock.now += rng.random() * 2  # the answer takes its time
            outcome = rng.choice(OUTCOMES)
            asked = rng.choice([None, None, 0, 3, 90, 4000])
            form = rng.random() < 0.5
            value = None if asked is None else str(asked) if form else http_date(clock.now + asked)
            pacer.note(outcome, value)
            earliest = sent + 1 / pace.requests_per_second
            if outcome in (Outcome.SERVER_BUSY, Outcome.TIMEOUT, Outcome.RATE_LIMITED) and asked is not None:
                # A date has whole seconds.
                earliest = max(earliest, clock.now + min(asked, MAX_WAIT) - (0 if form else 1))


def http_date(at: float) -> str:
    from datetime import UTC, datetime

    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


def test_refusals_close_the_host_at_once_and_failures_after_a_few() -> None:
    clock = FakeTime(random.Random(0))
    pacer = Pacer(Pace(), clock, clock.sleep)
    pacer.note(Outcome.CHALLENGE)
    with pytest.raises(HostClosedError):
        pacer.wait()
    pacer = Pacer(Pace(), clock, clock.sleep)
    for _ in range(PAGES - 1):
        pacer.wait()
        pacer.note(Outcome.SERVER_BUSY)
        pacer.page_failed(Outcome.SERVER_BUSY)
    pacer.wait()
    pacer.note(Outcome.OK)  # one answer makes up for the failures before
    assert pacer.failures == pacer.pages == 0
    for _ in range(PAGES):
        pacer.wait()
        pacer.note(Outcome.TIMEOUT)
        pacer.page_failed(Outcome.TIMEOUT)
    with pytest.raises(HostClosedError):
        pacer.wait()


def test_one_refused_page_is_not_the_host() -> None:
    clock = FakeTime(random.Random(0))
    pacer = Pacer(Pace(), clock, clock.sleep)
    for number in range(REFUSED):
        pacer.wait()
        pacer.note(Outcome.BLOCKED)
        pacer.page_failed(Outcome.BLOCKED)
        assert bool(pacer.closed) == (number == REFUSED - 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("0", 0),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30),
        ("Fri Jan 15 08:00:30 2027", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("-3", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_in_all_its_forms(value: str, seconds: float | None) -> None:
    assert seconds_to_wait(value, 1_800_000_000.0) == seconds


def hold(folder: Path, times: multiprocessing.Queue[tuple[float, float]]) -> None:
    for _ in range(5):
        with lease("https://www.ptt.cc", folder):
            began = time.monotonic()
            time.sleep(0.01)
            times.put((began, time.monotonic()))


def test_never_two_leases_a_host(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    times: multiprocessing.Queue[tuple[float, float]] = context.Queue()
    workers = [context.Process(target=hold, args=(tmp_path, times)) for _ in range(4)]
    for worker in workers:
        worker.start()
    held = sorted(times.get(timeout=30) for _ in range(20))
    for worker in workers:
        worker.join()
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(held))


def test_a_busy_host_is_told_and_a_pause_outlives_its_process(tmp_path: Path) -> None:
    with lease("https://www.ptt.cc", tmp_path) as held:
        held.next_at = 1234.5
        with pytest.raises(HostBusyError, match="another crawl"), lease("https://www.ptt.cc", tmp_path, wait=0.1):
            pass
        with lease("https://www.dcard.tw", tmp_path, wait=0.1):
            pass  # another host is another lease
    assert Lease(held.path).next_at == 1234.5
