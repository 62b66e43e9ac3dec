import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from persona_dagster.sample.clock import FIRST_DAY, Clock, ClockError, moment


def test_time_stands_still_until_it_is_advanced(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    assert clock.day == Clock(tmp_path).day == FIRST_DAY
    assert clock.advance(3) == FIRST_DAY + 3
    assert Clock(tmp_path).day == FIRST_DAY + 3, "another process sees it"
    assert [path.name for path in tmp_path.iterdir()] == ["clock.json"]


def test_day_and_moment_are_taipei_days() -> None:
    assert moment(0, "00:00") == datetime(2026, 8, 31, 16, 0, tzinfo=UTC)
    assert Clock(day=0).now() == datetime(2026, 9, 1, 15, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize("days", [0, -1])
def test_time_never_runs_back(tmp_path: Path, days: int) -> None:
    with pytest.raises(ClockError, match="forward"):
        Clock(tmp_path).advance(days)


@pytest.mark.parametrize("text", ["", "{}", '{"day": -1}', '{"day": "x"}', "[1]"])
def test_a_broken_clock_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock.json").write_text(text, encoding="utf-8")
    with pytest.raises(ClockError, match=r"clock\.json.*delete it"):
        _ = Clock(tmp_path).day


def test_the_file_is_plain(tmp_path: Path) -> None:
    Clock(tmp_path).advance(1)
    assert json.loads((tmp_path / "clock.json").read_text(encoding="utf-8")) == {"day": FIRST_DAY + 1}
