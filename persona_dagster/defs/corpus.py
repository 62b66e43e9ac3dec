"""Corpus assets: typed, cleaned, pseudonymised rows, a partition a board; then one corpus without twins."""

from base64 import b64encode
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.corpus.data_card import card_name, funnel_of, plot, write_data_card
from persona_dagster.corpus.dedup import dedup_version, mark_duplicates
from persona_dagster.corpus.incremental_cleaning import BoardCleaner, cleaning_version
from persona_dagster.corpus.ledger import row_ledger as read_rows
from persona_dagster.corpus.ledger_page import stages, write_page
from persona_dagster.corpus.quality import usable
from persona_dagster.defs.automation import only_if_data_changed
from persona_dagster.defs.partitions import board_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.digest import POST_MEANING, author_key, frame_digest, json_digest
from persona_dagster.intake.import_to_archive import of_profile, places_of, write_lost
from persona_dagster.lineage.tombstones import without_forgotten
from persona_dagster.records import FORUMS, Source

Frame = dg.Output[pl.DataFrame]


def build_corpus_assets(project: ProjectResource) -> list[dg.AssetsDefinition]:
    forums = [_forum_posts(project, source) for source in FORUMS]
    return [*forums, _chat_posts(project), _notes(project), _posts(project), _row_ledger(project)]


def versioned(frame: pl.DataFrame, columns: tuple[str, ...], metadata: dict[str, Any] | None = None) -> Frame:
    """A frame as an asset's value, with the digest of what it means as its data version."""
    return dg.Output(frame, data_version=dg.DataVersion(frame_digest(frame, columns)), metadata=metadata or {})


def _forum_posts(project: ProjectResource, source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{source}_posts",
        group_name="corpus",
        description=f"Posts and comments of {source}, a row each, parsed from the archive and cleaned: `text_raw` with "
        "personal data masked and forum residue kept, `text` without. Re-cleaning asks no site for anything.",
        partitions_def=board_partitions(project.sources, source),
        deps=[f"{source}_raw"],
        kinds={"duckdb", "polars"},
        owners=["team:data"],
        code_version=cleaning_version(project.personas().personas, project.settings.name_model),
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def forum_posts(context: dg.AssetExecutionContext) -> Frame:
        return _cleaned(project, source, [context.partition_key], context)

    return forum_posts


def _chat_posts(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="corpus",
        description="Messages of imported chats, a row each: speakers by key, `parent_id` the message answered.",
        deps=["chat_raw"],
        kinds={"duckdb", "polars"},
        owners=["team:data"],
        code_version=cleaning_version(project.personas().personas, project.settings.name_model),
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def chat_posts(context: dg.AssetExecutionContext) -> Frame:
        return _cleaned(project, "chat", [IMPORT_BOARD], context)

    return chat_posts


def _notes(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="corpus",
        description="Sections of the NLP notes: the heading asks, the section answers. Markdown structure is kept.",
        deps=["notes_raw"],
        kinds={"duckdb", "polars"},
        owners=["team:data"],
        code_version=cleaning_version(project.personas().personas, project.settings.name_model),
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def notes(context: dg.AssetExecutionContext) -> Frame:
        return _cleaned(project, "notes", project.archive().boards("notes"), context)

    return notes


def _cleaned(project: ProjectResource, source: Source, boards: list[str], context: dg.AssetExecutionContext) -> Frame:
    """Archive → posts → clean posts, with the funnel of every rule beside the table."""
    settings = project.settings
    cleaner = BoardCleaner(
        source,
        project.archive(),
        project.sources,
        project.personas().personas,
        partial(author_key, settings.author_secret, source),
        settings.cleaned_dir,
        name_model=settings.name_model,
    )
    places = places_of(settings.intake_dir) if boards == [IMPORT_BOARD] else None

    def keep(rows: pl.DataFrame) -> pl.DataFrame:
        rows = without_forgotten(rows, settings.home)
        return of_profile(rows, settings) if source == "notes" else rows

    cleaned, tally = cleaner.clean(boards, places, keep)
    if places is not None:
        write_lost(tally.lost, settings.intake_dir / "lost" / f"{source}.parquet")
    for problem in tally.problems[:50]:
        context.log.warning("%s/%s", source, problem)
    card = write_data_card(
        cleaned.frame,
        cleaned.funnel,
        None,
        project.settings.reports_dir / "corpus" / card_name(source, boards),
        title=f"{source}, {', '.join(boards)}" if source != "notes" else source,
    )
    return versioned(
        cleaned.frame,
        POST_MEANING,
        {
            "posts": cleaned.frame.filter(pl.col("kind") == "post").height,
            "usable_rows": cleaned.frame.filter(usable()).height,
            "captures_cleaned": tally.fresh,
            "captures_as_before": tally.kept,
            "captures_not_parsed": len(tally.problems),
            "unknown_labels": cleaned.funnel.unknown_labels.total(),
            "data_card": project.link(card / "data_card.html"),
            "funnel": dg.MetadataValue.md(cleaned.funnel.markdown()),
        },
    )


def _posts(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="corpus",
        description="All forum posts as one corpus. Exact and near duplicates point to the row that is kept "
        "(`dup_of`); nothing is deleted. Boards that were never scraped are absent.",
        ins={f"{source}_posts": dg.AssetIn() for source in (*FORUMS, "chat")},
        kinds={"duckdb", "polars"},
        owners=["team:data"],
        code_version=dedup_version(),
        io_manager_key="tables",
        automation_condition=only_if_data_changed(join=True),
    )
    def posts(
        ptt_posts: pl.DataFrame, dcard_posts: pl.DataFrame, threads_posts: pl.DataFrame, chat_posts: pl.DataFrame
    ) -> Frame:
        found = [ptt_posts, dcard_posts, threads_posts, chat_posts]
        everything = pl.concat([of_profile(frame, project.settings) for frame in found])
        deduplicated = mark_duplicates(everything, project.settings.dedup_dir)
        cards = project.settings.reports_dir / "corpus"
        funnel = funnel_of(deduplicated.frame, cards)
        card = write_data_card(deduplicated.frame, funnel, deduplicated.matches, cards / "posts")
        return versioned(
            deduplicated.frame,
            POST_MEANING,
            {
                "posts": deduplicated.frame.filter(pl.col("kind") == "post").height,
                "usable_rows": deduplicated.frame.filter(usable()).height,
                "duplicates": deduplicated.frame["dup_of"].count(),
                "rows_by_source": dict(deduplicated.frame.group_by("source").len().iter_rows()),
                "data_card": project.link(card / "data_card.html"),
            },
        )

    return posts


def _row_ledger(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="corpus",
        description="Where every row went: each in exactly one bucket, with file and row, as far as the graph has "
        "come. `persona build` makes it last; `persona funnel` opens its buckets.",
        deps=["posts"],
        kinds={"polars"},
        owners=["team:data"],
    )
    def row_ledger() -> dg.MaterializeResult:
        settings = project.settings
        ledger = read_rows(settings)
        counts = stages(ledger)
        page = write_page(ledger, settings.reports_dir / "funnel" / "funnel.html")
        bars = [(one["bucket"], float(one["rows"])) for one in counts]
        image = b64encode(plot(bars[:16], "rows by bucket")).decode() if bars else ""
        lines = (f"| {one['stage']} | {one['bucket']} | {one['why']} | {one['rows']:,} |" for one in counts)
        table = "\n".join(lines)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(json_digest(counts)),
            metadata={
                "rows": ledger.height,
                "buckets": dg.MetadataValue.md(f"| stage | bucket | why | rows |\n|---|---|---|--:|\n{table}"),
                "plot": dg.MetadataValue.md(f"![rows by bucket](data:image/png;base64,{image})"),
                "page": project.link(page),
            },
        )

    return row_ledger
