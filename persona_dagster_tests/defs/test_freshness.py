"""Freshness by board: a silent board is not hidden by a busy one, and it is told once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.freshness import CHECK, STALE
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.settings import Settings


@dataclass(frozen=True)
class Dated(ProjectResource):
    """A project whose clock the test moves."""

    ahead: list[timedelta] = field(default_factory=lambda: [timedelta()])

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead[0]


def test_each_board_goes_yellow_then_red_and_green_again_and_is_told_once(tmp_path: Path) -> None:
    opened = ProjectResource.open(Settings(home=tmp_path, profile="tiny", hardware="cpu"))
    project = Dated(opened.settings, opened.sources, opened.recipes)
    repository = build_defs(project=project).get_repository_def()
    sensor, cursor = repository.get_sensor_def("freshness"), None
    with dg.DagsterInstance.ephemeral() as instance:

        def asked(board: str) -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization("ptt_raw", partition=board))

        def look(days: float) -> list[tuple[str | None, bool, str]]:
            nonlocal cursor
            project.ahead[0] = timedelta(days=days)
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor
            assert {one.check_name for one in tick.asset_events} <= {CHECK}
            return [(one.partition, one.passed, one.severity.value) for one in tick.asset_events]

        asked("Hate")
        assert look(0) == []  # a board that was never asked is absent, not stale
        assert look(2.5) == [("Hate", False, "WARN")]
        assert look(2.6) == []
        assert look(STALE.days + 0.5) == [("Hate", False, "ERROR")]
        asked("Boy-Girl")
        assert look(STALE.days + 0.6) == [("Boy-Girl", False, "ERROR")]  # by the test's clock
        asked("Hate")
        assert look(0) == [("Boy-Girl", True, "WARN"), ("Hate", True, "WARN")]
