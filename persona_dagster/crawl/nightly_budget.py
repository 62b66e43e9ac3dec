"""How the boards of one site share a night: each gets an equal part of what is left of the polite hours.

What a board does not use falls to those after it; the end of the hours is kept whatever is still owed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import Site, Sources
from persona_dagster.crawl.frontier import NAME, Frontier
from persona_dagster.records import Source

TAIPEI = timedelta(hours=8)
LEAST = 3  # requests: robots.txt, the newest page, one post
SHORT = 0.05  # minutes


def shared(sources: Sources, source: Source, board: str, archive: Archive, now: float) -> Sources:
    """The sources with this board's budget for now: its share of the night, or its own pace outside polite hours."""
    site = sources.site(source)
    passed = {name: _passed_at(archive, source, name) for name in site.boards}
    requests, minutes = share(site, board, passed, now)
    pace = site.pace.model_copy(update={"max_requests": requests, "max_minutes": minutes})
    return sources.model_copy(update={source: site.model_copy(update={"pace": pace})})


def share(site: Site, board: str, passed: Mapping[str, float | None], now: float) -> tuple[int, float]:
    """Requests and minutes for a board. `passed`: when each board's last pass ended (unix seconds)."""
    pace = site.pace
    begins, ends = night(pace.polite_hours, now)
    if not begins <= now < ends:
        return pace.max_requests, pace.max_minutes
    waiting = sum(1 for name in site.boards if name != board and (passed.get(name) or 0.0) < begins) + 1
    minutes = min(pace.max_minutes, (ends - now) / 60 / waiting)
    return max(LEAST, min(pace.max_requests, int(minutes * 60 * pace.requests_per_second))), max(minutes, SHORT)


def night(hours: tuple[int, int], now: float) -> tuple[float, float]:
    """Begin and end (unix seconds) of the polite hours, Asia/Taipei, that end next."""
    local = datetime.fromtimestamp(now, UTC) + TAIPEI
    day = local.replace(hour=0, minute=0, second=0, microsecond=0)
    begins, ends = day + timedelta(hours=hours[0]), day + timedelta(hours=hours[1])
    if ends <= begins:  # over midnight
        begins -= timedelta(days=1)
    if ends <= local:
        begins, ends = begins + timedelta(days=1), ends + timedelta(days=1)
    return (begins - TAIPEI).timestamp(), (ends - TAIPEI).timestamp()


def _passed_at(archive: Archive, source: Source, board: str) -> float | None:
    path = archive.place(source, board, NAME)
    if path is None or not path.is_file():
        return None
    frontier = Frontier(path)
    try:
        return frontier.note("passed_at")
    finally:
        frontier.close()
