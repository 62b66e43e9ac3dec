"""Freshness by board. Dagster's freshness policy is one for a whole asset, where a busy board would hide a silent one:
so it is a check of each partition, which a sensor looks at every hour."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import orjson

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.notifying import notify
from persona_dagster.defs.partitions import board_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.records import FORUMS, Source

CHECK = "board_was_asked_lately"
# Asked every night: after two something is wrong, after four somebody must look.
LATE, STALE = timedelta(days=2), timedelta(days=4)
POLICY = dg.FreshnessPolicy.time_window(fail_window=STALE, warn_window=LATE)
EVERY_HOUR = 3600


def build_freshness_checks(project: ProjectResource) -> list[dg.AssetChecksDefinition]:
    return [_check(project, source) for source in FORUMS]


def _check(project: ProjectResource, source: Source) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=f"{source}_raw",
        name=CHECK,
        partitions_def=board_partitions(project.sources, source),
        description=f"This board was asked within {LATE.days} days (a warning) or {STALE.days} (an error). The sensor "
        "`freshness` says so as time passes.",
    )
    def board_was_asked_lately(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        age = _age(project, context.instance, source, context.partition_key) or timedelta()
        return dg.AssetCheckResult(passed=age < LATE, severity=_severity(age), metadata=_told(age))

    return board_was_asked_lately


def freshness_sensor(project: ProjectResource, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    @dg.sensor(
        name="freshness",
        default_status=status,
        minimum_interval_seconds=EVERY_HOUR,
        description="Turns a board's freshness check yellow or red when it was not asked for days, and tells of it.",
    )
    def freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before = orjson.loads(context.cursor or "{}")
        now = {f"{source}/{board}": age for source, board, age in _ages(project, context.instance)}
        standing = {name: 2 if age >= STALE else int(age >= LATE) for name, age in now.items()}
        events = []
        for name, age in now.items():
            if standing[name] != before.get(name, 0):
                source, _, board = name.partition("/")
                if standing[name] > before.get(name, 0):
                    notify(f"{name} was asked for the last time {age.days} days ago", context.log)
                events.append(
                    dg.AssetCheckEvaluation(
                        asset_key=dg.AssetKey(f"{source}_raw"),
                        check_name=CHECK,
                        passed=age < LATE,
                        severity=_severity(age),
                        metadata=_told(age),
                        partition=board,
                    )
                )
        return dg.SensorResult(asset_events=events, cursor=orjson.dumps(standing).decode())

    return freshness


def _ages(project: ProjectResource, instance: dg.DagsterInstance) -> Iterator[tuple[Source, str, timedelta]]:
    """Of boards that were asked at least once."""
    for source in FORUMS:
        for board in project.sources.partitions(source):
            if board != IMPORT_BOARD and (age := _age(project, instance, source, board)) is not None:
                yield source, board, age


def _age(project: ProjectResource, instance: dg.DagsterInstance, source: Source, board: str) -> timedelta | None:
    wanted = dg.AssetRecordsFilter(dg.AssetKey(f"{source}_raw"), asset_partitions=[board])
    records = instance.fetch_materializations(wanted, limit=1).records
    return timedelta(seconds=project.now().timestamp() - records[0].timestamp) if records else None


def _severity(age: timedelta) -> dg.AssetCheckSeverity:
    return dg.AssetCheckSeverity.ERROR if age >= STALE else dg.AssetCheckSeverity.WARN


def _told(age: timedelta) -> dict[str, dg.MetadataValue]:
    return {"hours_since_it_was_asked": dg.MetadataValue.float(round(age.total_seconds() / 3600, 1))}
