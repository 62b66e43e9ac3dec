"""What was seen of one thing, and when: the archive's index without the bodies."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from persona_dagster.records import Outcome

GONE_TWICE = 2  # a 404 must be seen again before it counts


@dataclass(frozen=True, slots=True)
class Sighting:
    """One row of the index: a capture without its body, and where the row is."""

    kind: str
    key: str
    url: str
    fetched_at: datetime
    status: int
    outcome: str
    sha256: str
    stored: bool
    part: str
    row: int


@dataclass(slots=True)
class History:
    """All sightings of one (kind, key), oldest first."""

    sightings: list[Sighting] = field(default_factory=list)

    def settle(self) -> None:
        """Into order; a row that stands in two parts (merging was cut short) is one, and the one with bytes wins."""
        distinct: dict[tuple[datetime, str, str], Sighting] = {}
        for seen in self.sightings:
            name = (seen.fetched_at, seen.sha256, seen.outcome)
            if name not in distinct or seen.stored:
                distinct[name] = seen
        self.sightings = sorted(distinct.values(), key=lambda seen: seen.fetched_at)

    @property
    def newest(self) -> Sighting:
        return self.sightings[-1]

    @property
    def whole(self) -> Sighting | None:
        return next((seen for seen in reversed(self.sightings) if seen.outcome == Outcome.OK), None)

    @property
    def best(self) -> Sighting | None:
        """The newest whole one; failing that, the newest that a better parser may yet read."""
        unread = (seen for seen in reversed(self.sightings) if seen.outcome == Outcome.PARSE_INCOMPLETE)
        return self.whole or next(unread, None)

    @property
    def gone(self) -> bool:
        """Not there at the two newest sightings."""
        last = [seen.outcome for seen in self.sightings[-GONE_TWICE:]]
        return last == [Outcome.GONE] * GONE_TWICE

    def in_the_middle(self, n: int) -> bool:
        """Whether sighting `n` says what the ones before and after it say."""
        if not 0 < n < len(self.sightings) - 1:
            return False
        before, here, after = (self.sightings[n + step] for step in (-1, 0, 1))
        return before.sha256 == here.sha256 == after.sha256 and before.outcome == here.outcome == after.outcome
