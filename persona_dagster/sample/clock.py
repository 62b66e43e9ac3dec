"""The replica's time: it stands still between runs, until somebody advances it by whole days.

Day 0 is a fixed date, so the sample is the same on every machine and in every year.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from persona_dagster.artifacts import write_json

TAIPEI = timezone(timedelta(hours=8))  # no daylight saving since 1979
EPOCH = datetime(2026, 9, 1, tzinfo=TAIPEI)
FIRST_DAY = 20  # what a new sample shows: days 0 to 20; later days come by `advance`


class ClockError(ValueError):
    """clock.json cannot be used; the message names the file and the cure."""


def moment(day: int, time: str) -> datetime:
    """The UTC time of `HH:MM` in Taipei, `day` days after the epoch."""
    hours, minutes = time.split(":")
    return (EPOCH + timedelta(days=day, hours=int(hours), minutes=int(minutes))).astimezone(UTC)


class Clock:
    """Reads and moves `folder/clock.json`; without a folder it lives in memory."""

    def __init__(self, folder: Path | None = None, day: int = FIRST_DAY):
        self.path = folder / "clock.json" if folder else None
        self._day = day

    @property
    def day(self) -> int:
        """Days since the epoch; the file is read each time, since another process may advance it."""
        if self.path is None or not self.path.exists():
            return self._day
        try:
            day = json.loads(self.path.read_text(encoding="utf-8"))["day"]
        except (ValueError, KeyError, TypeError) as error:
            raise ClockError(
                f'{self.path}: is not {{"day": N}}; delete it to start again at day {FIRST_DAY}'
            ) from error
        if not isinstance(day, int) or day < 0:
            raise ClockError(f"{self.path}: day must be a whole number from 0; delete it to start at day {FIRST_DAY}")
        return day

    def now(self) -> datetime:
        """The last second of the day, UTC: whatever carries this day has happened."""
        return (EPOCH + timedelta(days=self.day + 1, seconds=-1)).astimezone(UTC)

    def advance(self, days: int) -> int:
        """Moves on by `days` (at least 1) and gives the new day; time never runs back, as on the sites."""
        if days < 1:
            raise ClockError(f"the sample's clock only moves forward: advance by 1 or more days, not {days}")
        self._day = self.day + days
        if self.path is not None:
            write_json(self.path, {"day": self._day})
        return self._day
