"""Boards share a night fairly, and its end is kept."""

from __future__ import annotations

from datetime import UTC, datetime

from persona_dagster.config.sources import Pace, Site
from persona_dagster.crawl.nightly_budget import night, share

ONE = datetime(2026, 9, 1, 17, 0, tzinfo=UTC).timestamp()  # 01:00 in Taipei
BOARDS = tuple(f"b{n}" for n in range(200))
SITE = Site(origin="https://x", hosts=("x",), boards=BOARDS, pace=Pace(max_requests=600, polite_hours=(1, 7)))


def test_two_hundred_boards_share_a_night() -> None:
    now, passed, asked = ONE, dict[str, float | None](), []
    for board in BOARDS:
        requests, minutes = share(SITE, board, passed, now)
        asked.append(requests)
        now += min(requests, minutes * 60)  # all that it may, at a request a second
        passed[board] = now
    assert now <= ONE + 6 * 3600 + 200
    assert min(asked) >= 100, "none starves"
    assert max(asked) - min(asked) <= 10, "none takes another's part"


def test_what_some_do_not_use_falls_to_the_others() -> None:
    passed = dict.fromkeys(BOARDS[:190], ONE + 600)
    requests, _ = share(SITE, BOARDS[190], passed, ONE + 600)
    assert requests == 600


def test_outside_of_the_hours_a_board_has_its_own_pace() -> None:
    assert share(SITE, "b0", {}, ONE + 8 * 3600) == (600, 30)


def test_hours_over_midnight() -> None:
    begins, ends = night((23, 5), ONE)
    assert begins <= ONE < ends
    assert ends - begins == 6 * 3600
