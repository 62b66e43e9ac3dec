"""Raw assets: what the sites sent, archived byte for byte, a partition a board."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.crawl.crawl_board import crawl_board, summary
from persona_dagster.crawl.fetcher import CrawlReport
from persona_dagster.crawl.frontier import goal_reached
from persona_dagster.crawl.nightly_budget import shared
from persona_dagster.defs.freshness import POLICY
from persona_dagster.defs.partitions import board_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.digest import combine, json_digest
from persona_dagster.records import FORUMS, Capture, Outcome, Source

DESCRIPTIONS = {
    "ptt": "PTT boards (www.ptt.cc) as served. Chromium passes the over18 gate once; articles come by plain HTTP.",
    "dcard": "Dcard forums (www.dcard.tw) through a real Chromium: the JSON that the site sends to its own page.",
    "threads": "Threads keywords, tags and accounts: the official API in live, the captured page data in the sample.",
}


RETRY_SECONDS = 30


class ImportConfig(dg.Config):
    """What `persona import` takes on the command line."""

    paths: list[str] = Field(  # a default, or `Materialize all` is refused
        default=[], description="Files, folders or ZIPs on this machine. None: what lies in the imports folder."
    )
    source: str = Field(default="", description="ptt, dcard, threads, chat or notes, where no column says it.")
    board: str = Field(default="", description="Of all rows, where no column says it.")
    consent: bool = Field(default=False, description="The people of these chats agree that a model learns from them.")


class CrawlConfig(dg.Config):
    """How deep one pass goes. The default walks from the board's watermark to now, and revisits what is due."""

    since_days: int = Field(  # no None: a launchpad shows only defaults that are values
        default=0,
        ge=0,
        description="Also walk back to posts of this many days ago, though they were seen before. 0: only what is new.",
    )


def build_raw_assets(project: ProjectResource) -> list[dg.AssetsDefinition]:
    forums = [_forum_raw(project, source) for source in FORUMS]
    return [*forums, _imported_files(project), _chat_raw(project), _notes_raw(project), _capybara_raw(project)]


def _forum_raw(project: ProjectResource, source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{source}_raw",
        group_name="raw",
        description=DESCRIPTIONS[source]
        + f"\n\nThe partition `{IMPORT_BOARD}` takes in the dumps found under `$PERSONA_HOME/imports` (JSONL, also "
        ".gz and .zst, in the import schema). The archive is immutable but for forgetting.",
        partitions_def=board_partitions(project.sources, source),
        kinds={"parquet", "playwright"},
        owners=["team:data"],
        pool=f"host_{source}",
        freshness_policy=POLICY,
    )
    def forum_raw(context: dg.AssetExecutionContext, config: CrawlConfig) -> dg.MaterializeResult:
        archive, board = project.archive(), context.partition_key
        if board == IMPORT_BOARD:
            return _import(project, archive, source, context)
        since = datetime.now(UTC) - timedelta(days=config.since_days) if config.since_days else None
        sources = project.sources
        if project.settings.profile == "live":
            sources = shared(sources, source, board, archive, datetime.now(UTC).timestamp())
        with project.transport() as transport:
            report = crawl_board(
                source, board, sources, archive, transport=transport, since=since, log=context.log.info
            )
        return _crawled(report)

    return forum_raw


def _crawled(report: CrawlReport) -> dg.MaterializeResult:
    """The result of one pass. One that got nothing fails, and what was stored stays: a busy server is asked again
    soon; a login wall, a block, or a board that is not there is left for a person."""
    if report.stopped and not report.outcomes[Outcome.OK]:
        if report.retryable and not report.outcomes[Outcome.GONE]:
            raise dg.RetryRequested(max_retries=2, seconds_to_wait=RETRY_SECONDS) from RuntimeError(summary(report))
        raise dg.Failure(summary(report), metadata={"problems": report.problems}, allow_retries=False)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(report.digest),
        metadata={
            "posts_new": report.new,
            "posts_changed": report.changed,
            "posts_gone": report.gone,
            "posts_unchanged": report.unchanged,
            "requests": report.requests,
            "megabytes": round(report.bytes / 1e6, 3),
            "seconds": round(report.seconds, 1),
            "left_for_the_next_pass": report.due,
            "reaches_its_goal": goal_reached(report.passes_left, datetime.now(UTC).timestamp()),
            "in_quarantine": report.quarantined[:20],
            "outcomes": dict(report.outcomes),
            "problems": report.problems,
            "stopped": report.stopped or "walked to the end",
            "known_up_to": report.watermark or "nothing yet",
        },
    )


def _import(
    project: ProjectResource, archive: Archive, source: Source, context: dg.AssetExecutionContext
) -> dg.MaterializeResult:
    """One pass over the folder serves all sources: the next source's run finds that no file has changed."""
    from persona_dagster.intake.import_to_archive import take_in

    done = take_in(project.settings, archive, denied=project.sources.denied_boards)
    for problem in done.problems[:50]:
        context.log.warning("%s", problem)
    rows = sum(taken.sources[source] for taken in done.files)
    found = f"{rows} rows of {source}" if rows else f"nothing of {source}: put a file here, or run persona import FILE"
    context.log.info("%s, in %s", found, project.settings.imports_dir)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(archive.digest(source, IMPORT_BOARD)),
        metadata={
            "found": found,
            "files": len(done.files),
            "rows_of_this_source": rows,
            "rows_in_all": done.fates.total(),
            **{f"rows_{fate}": count for fate, count in done.fates.items()},
            "problems": done.problems[:20],
            "folder": dg.MetadataValue.path(str(project.settings.imports_dir)),
            "quarantine": dg.MetadataValue.path(str(project.settings.quarantine_dir)),
        },
    )


def _imported_files(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="raw",
        description="Takes in what lies at the paths that it is launched with, as `persona import` does: how each file "
        "is read, and what became of its rows, stands in the metadata. The sensor `new_files` goes on from there.",
        kinds={"parquet"},
        owners=["team:data"],
    )
    def imported_files(context: dg.AssetExecutionContext, config: ImportConfig) -> dg.MaterializeResult:
        from persona_dagster.intake.file_formats import Options
        from persona_dagster.intake.import_files import Consents, bring, look_at
        from persona_dagster.intake.mapping import Mappings

        settings, consents = project.settings, Consents(project.settings)
        options = Options(source=config.source or None, board=config.board or None)
        paths = [Path(path).expanduser().absolute() for path in config.paths]
        looks = [look_at(path, options, Mappings(settings.mappings_dir)) for path in paths]
        if not config.consent and any(consents.missing(look) for look in looks):
            raise dg.Failure("A chat: launch it with consent: true, if its people agree", allow_retries=False)
        for look in looks:
            consents.record(look)
        done, notes = bring(looks, settings, project.archive(), options, project.sources.denied_boards)
        problems = [*(str(problem) for look in looks for problem in look.problems), *done.problems]
        for problem in problems[:50]:
            context.log.warning("%s", problem)
        streams = [seen.stream for look in looks for seen in look.streams]
        if paths and not streams:
            raise dg.Failure("; ".join(problems) or "nothing lies at these paths", allow_retries=False)
        files = [f"| {s.name} | {s.format} | {s.mapping.fields if s.mapping else ''} |" for s in streams]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(json_digest([done.fates, [path.name for path in notes]])),
            metadata={
                **{f"rows_{fate}": count for fate, count in done.fates.items()},
                "notes": len(notes),
                "files": dg.MetadataValue.md("\n".join(["| file | read as | columns |", "|---|---|---|", *files])),
                "problems": problems[:20],
                "quarantine": dg.MetadataValue.path(str(settings.quarantine_dir)),
            },
        )

    return imported_files


def _chat_raw(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="raw",
        description="Chats that were exported from LINE and Discord and imported; their people's consent is recorded "
        "in `$PERSONA_HOME/config/consents.yaml`.",
        kinds={"parquet"},
        owners=["team:data"],
    )
    def chat_raw(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return _import(project, project.archive(), "chat", context)

    return chat_raw


def _notes_raw(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="raw",
        description="NLP notes in Markdown or JSONL from `$PERSONA_HOME/notes`; the packaged primer where that "
        "folder is empty (tiny and sample).",
        kinds={"parquet", "markdown"},
        owners=["team:data"],
    )
    def notes_raw() -> dg.MaterializeResult:
        from persona_dagster.intake.notes import read_notes
        from persona_dagster.sample.content_loader import PACKAGED

        own = project.settings.notes_dir
        folder = (
            own
            if (own.is_dir() and any(own.rglob("*.*"))) or project.settings.profile in ("own", "live")
            else PACKAGED / "notes"
        )
        return _read_in(project.archive(), "notes", read_notes(folder), folder)

    return notes_raw


def _capybara_raw(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="raw",
        description="Multi-turn dialogues of the dataset Capybara, or `$PERSONA_HOME/imports/capybara*.jsonl` in its "
        "columns; tiny and sample bring dialogues of their own.\n\n"
        "[trl-lib/Capybara](https://huggingface.co/datasets/trl-lib/Capybara)",
        kinds={"parquet", "huggingface"},
        owners=["team:data"],
    )
    def capybara_raw() -> dg.MaterializeResult:
        from persona_dagster.intake.capybara import PACKAGED, read_dialogues

        if project.settings.profile == "own":  # what was imported is in the archive; nobody else's stands beside it
            return _read_in(project.archive(), "capybara", (), project.settings.imports_dir)
        own = sorted(project.settings.imports_dir.glob("capybara*.jsonl*"))
        live = project.settings.profile == "live"
        path = own[0] if own else None if live else PACKAGED
        captures = read_dialogues(path, hub=live and not own)
        return _read_in(project.archive(), "capybara", captures, path or Path("trl-lib/Capybara"))

    return capybara_raw


def _read_in(archive: Archive, source: Source, captures: Iterable[Capture], origin: Path) -> dg.MaterializeResult:
    read = archive.append(captures)
    boards = archive.boards(source)
    digests = [archive.digest(source, board) for board in boards]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(combine(digests)),
        metadata={"captures_read": read, "boards": len(boards), "read_from": str(origin)},
    )
