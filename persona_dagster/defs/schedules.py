"""What happens by the clock: each site is asked once a night, board by board, and the archive is packed once a week.

Schedules of re-scrapes start runs, not backfills, so that a board fails, blocks and is switched on site by site. The
partition for imports is left to the sensor `new_files`: a night brings no file.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import dagster as dg

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.jobs import RESCRAPE, Jobs
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.run_pruning import weekly_pruning
from persona_dagster.records import FORUMS, Source

TAIPEI = "Asia/Taipei"


def build_schedules(project: ProjectResource, jobs: Jobs) -> list[dg.ScheduleDefinition]:
    live = project.settings.profile == "live"
    status = dg.DefaultScheduleStatus.STOPPED if live else dg.DefaultScheduleStatus.RUNNING
    named = {job.name: job for job in jobs}
    nightly = [_nightly(project, source, status, named[RESCRAPE[source]]) for source in FORUMS]
    return [*nightly, _weekly_compaction(project, status), weekly_pruning(project)]


def quiet_time(project: ProjectResource, source: Source) -> str:
    """The cron line of a site: the first of its polite hours, at a minute of the site's own (15 and more apart, so
    that no two browsers start at once)."""
    hour, _ = project.sources.site(source).pace.polite_hours
    return f"{zlib.crc32(b'night of ' + source.encode()) % 60} {hour} * * *"


def _nightly(
    project: ProjectResource, source: Source, status: dg.DefaultScheduleStatus, job: Any
) -> dg.ScheduleDefinition:
    asset = f"{source}_raw"

    @dg.schedule(
        name=f"nightly_{source}",
        cron_schedule=quiet_time(project, source),
        execution_timezone=TAIPEI,
        job=job,
        default_status=status,
        description=f"Asks {source} what is new, a run a board, while its readers sleep. Boards wait for each other "
        f"(pool `host_{source}`), and revisits that are due come with the pass. News are cleaned by `automation`.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        night = context.scheduled_execution_time.date()
        for board in project.sources.partitions(source):
            if board != IMPORT_BOARD:
                yield dg.RunRequest(
                    run_key=f"{night}:{board}", partition_key=board, asset_selection=[dg.AssetKey(asset)]
                )

    return nightly


def _weekly_compaction(project: ProjectResource, status: dg.DefaultScheduleStatus) -> dg.ScheduleDefinition:
    return dg.ScheduleDefinition(
        name="weekly_compaction",
        cron_schedule="30 8 * * 1",  # Monday, after the last of the polite hours
        execution_timezone=TAIPEI,
        job=compaction_job(project),
        default_status=status,
        description="Merges each board's small parts. What the archive says, and its digest, stay the same.",
    )


def compaction_job(project: ProjectResource) -> dg.JobDefinition:
    """An op a site, under the site's pool: nothing is appended while its parts are merged."""

    def compaction(source: Source) -> dg.OpDefinition:
        @dg.op(name=f"compact_{source}", pool=f"host_{source}", out=dg.Out(dg.Nothing))
        def compact(context: dg.OpExecutionContext) -> None:
            archive = project.archive()
            for board in archive.boards(source):
                before = len(archive.parts(source, board))
                context.log.info("%s/%s: %d parts, now %d", source, board, before, archive.compact(source, board))

        return compact

    ops = [compaction(source) for source in FORUMS]

    @dg.job(name="compact_archive", description="Merge the small parts of the raw archive. Changes no content.")
    def compact_archive() -> None:
        for op in ops:
            op()

    return compact_archive
