"""Old runs out of Dagster's storage, which keeps them for good: 130 KB each, some 200 a week on a dozen boards.

Deleting a run deletes its events, and with them what an asset is known by: its data version, its metadata, the failure
that the automation counts. So the run of each newest materialisation stays, and whatever was tried since.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from persona_dagster.defs.resources import ProjectResource

FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PAGE = 500
Newest = dict[tuple[dg.AssetKey, str | None], dg.EventLogRecord]  # materialisation, by asset and partition


class PruneConfig(dg.Config):
    """Which runs go."""

    older_than_days: int = Field(default=90, ge=1, description="Finished runs that were started before this many days.")
    dry_run: bool = Field(default=False, description="Only count them.")


def prune(instance: dg.DagsterInstance, before: datetime, *, dry_run: bool = False) -> list[str]:
    """Deletes finished runs created before `before`, with their events and logs; returns their ids."""
    newest = newest_materialisations(instance)
    kept = {record.run_id for record in newest.values()}
    old = [
        record.dagster_run.run_id
        for record in _finished(instance, before)
        if record.dagster_run.run_id not in kept and not _tried_since(record, newest)
    ]
    for run_id in [] if dry_run else old:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
        _unlink_shard(instance, run_id)
    return old


def newest_materialisations(instance: dg.DagsterInstance) -> Newest:
    newest: Newest = {}
    for asset in instance.get_asset_keys():
        for partition in (None, *sorted(instance.get_materialized_partitions(asset))):
            wanted = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[partition] if partition else None)
            for record in instance.fetch_materializations(wanted, limit=1).records:
                newest[asset, partition] = record
    return newest


def _finished(instance: dg.DagsterInstance, before: datetime) -> Iterator[dg.RunRecord]:
    cursor: str | None = None
    filters = dg.RunsFilter(statuses=FINISHED, created_before=before)
    while page := instance.get_run_records(filters, limit=PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _tried_since(record: dg.RunRecord, newest: Newest) -> bool:
    """Whether an asset of the run was not made again after it."""
    run = record.dagster_run
    partition = run.tags.get("dagster/partition") or run.tags.get("dagster/asset_partition_range_start")
    made = (newest.get((asset, partition)) or newest.get((asset, None)) for asset in run.asset_selection or ())
    return any(one is None or one.timestamp < record.create_timestamp.timestamp() for one in made)


def _unlink_shard(instance: dg.DagsterInstance, run_id: str) -> None:
    """SQLite keeps a database a run, which Dagster empties but leaves; other storages have nothing of the kind."""
    path_for: Callable[[str], str] | None = getattr(instance.event_log_storage, "path_for_shard", None)
    for ending in ("", "-wal", "-shm") if path_for else ():
        with suppress(FileNotFoundError):
            Path(f"{path_for(run_id)}{ending}").unlink()  # type: ignore[misc]


def pruning_job() -> dg.JobDefinition:
    @dg.op(name="prune", out=dg.Out(dg.Nothing))
    def remove(context: dg.OpExecutionContext, config: PruneConfig) -> None:
        before = datetime.now(UTC) - timedelta(days=config.older_than_days)
        gone = prune(context.instance, before, dry_run=config.dry_run)
        context.add_output_metadata({"runs": len(gone), "older_than": f"{before:%Y-%m-%d}", "dry_run": config.dry_run})

    @dg.job(
        description="Deletes finished runs older than 90 days (run config says otherwise), with their events and logs. "
        "Runs that an asset's present state hangs on stay: its newest materialisation, and what was tried since."
    )
    def prune_runs() -> None:
        remove()

    return prune_runs


def weekly_pruning(project: ProjectResource) -> dg.ScheduleDefinition:
    """Off in live until the operator switches it on: history that is gone does not come back."""
    live = project.settings.profile == "live"
    return dg.ScheduleDefinition(
        name="weekly_pruning",
        cron_schedule="45 8 * * 1",  # after the compaction
        execution_timezone="Asia/Taipei",
        job=pruning_job(),
        default_status=dg.DefaultScheduleStatus.STOPPED if live else dg.DefaultScheduleStatus.RUNNING,
        description="Takes runs older than 90 days out of Dagster's storage, but for those that an asset's state "
        "hangs on.",
    )
