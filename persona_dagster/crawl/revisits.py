"""When a post is looked at again: a ladder by age, moved by what was seen to change.

Steps are in multiples of the site's cache time, so that the replica, which has none, is looked at on every pass.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from persona_dagster.archive.history import History
from persona_dagster.records import Outcome

# (age up to, least cache times between looks): of 15 minutes each, 1 h in the first 6 hours, 4 weeks after a month.
LADDER = (
    (timedelta(hours=6), 4),
    (timedelta(days=1), 12),
    (timedelta(days=3), 48),
    (timedelta(days=7), 96),
    (timedelta(days=30), 7 * 96),
    (timedelta(days=90), 28 * 96),
)
AUDIT = 96  # cache times (a day) from the first 404 to the second look
UNREAD, UNREAD_DOUBLINGS = 2, 8  # cache times to another look at what did not parse: half an hour, at most 5 days
DOUBLINGS = 2  # at most: what did not change is looked at up to 4 times as seldom


def step(age: timedelta) -> int | None:
    """Cache times to the next look at a post of that age; None: no more looks."""
    return next((times for upto, times in LADDER if age <= upto), None)


def due_at(history: History, created: datetime, board_now: datetime, cache: timedelta) -> datetime | None:
    """When the post is due; None when it is not looked at any more.

    Age is measured on the board's own clock (its newest post), not on ours: a board that stands still ages no
    further.
    """
    if history.gone:
        return None
    newest = history.newest
    if newest.outcome == Outcome.GONE:
        return newest.fetched_at + AUDIT * cache
    if newest.outcome == Outcome.PARSE_INCOMPLETE:
        return newest.fetched_at + UNREAD * 2 ** min(len(history.sightings) - 1, UNREAD_DOUBLINGS) * cache
    times = step(board_now - created)
    if times is None:
        return None
    same = sum(1 for seen in history.sightings if seen.sha256 == newest.sha256) - 1
    changed_lately = len(history.sightings) > 1 and same == 0
    pace = times / 2 if changed_lately else times * 2 ** min(same, DOUBLINGS)
    return newest.fetched_at + max(pace, 1) * cache
