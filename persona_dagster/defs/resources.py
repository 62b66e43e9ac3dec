"""What assets are given: the project (settings and configuration), the ways to the sites, the tables.

Nothing here touches disk or network before an asset runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import dagster as dg
import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import Metrics, MixManifest, RunCard, Versions
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Recipe, ResolvedRecipe, load_recipe, recipe_names
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.config.split import SplitSpec, load_split
from persona_dagster.conversation.graph import GRAPH_SCHEMA
from persona_dagster.conversation.labels import LABEL_SCHEMA
from persona_dagster.conversation.mix_store import recipe_mixes
from persona_dagster.corpus.tables import WHOLE, Tables
from persona_dagster.crawl.transport import Transport
from persona_dagster.defs.columns import column_lineage, column_schema
from persona_dagster.models.hardware import resolved_recipe
from persona_dagster.records import DIALOGUE_SCHEMA, POST_SCHEMA, SPLIT_SCHEMA
from persona_dagster.settings import Settings

SCHEMAS = {
    **dict.fromkeys(("ptt_posts", "dcard_posts", "threads_posts", "chat_posts", "notes", "posts"), POST_SCHEMA),
    **dict.fromkeys(("dialogues", "capybara_dialogues"), DIALOGUE_SCHEMA),
    "reply_graph": GRAPH_SCHEMA,
    "split": SPLIT_SCHEMA,
    "voice_labels": LABEL_SCHEMA,
}
UPSTREAM = {  # the tables whose columns a table takes over by name
    "posts": ("ptt_posts", "dcard_posts", "threads_posts", "chat_posts"),
    "reply_graph": ("posts",),
    "dialogues": ("posts", "notes"),
    "split": ("dialogues", "capybara_dialogues"),
}


@dataclass(frozen=True)
class ProjectResource:
    """One loading of the definitions: settings, sites and names of recipes, read once. Personas are read when asked, so
    that a long-lived code server sees an edited file without a reload; a recipe stands as `recipe_config` stored it."""

    settings: Settings
    sources: Sources
    recipes: tuple[str, ...]

    @classmethod
    def open(cls, settings: Settings) -> "ProjectResource":
        config, accepted = settings.config_dir, settings.accepted_dir
        return cls(settings, load_sources(config, settings.profile, accepted), recipe_names(config, accepted))

    def personas(self) -> Personas:
        return load_personas(self.settings.config_dir, self.settings.accepted_dir)

    def split(self) -> SplitSpec:
        return load_split(self.settings.config_dir, self.settings.accepted_dir)

    def tables(self) -> Tables:
        return Tables(self.settings.tables_dir)

    def recipe(self, name: str) -> Recipe:
        """See `resolved_recipe`."""
        return resolved_recipe(name, self.settings)

    def resolved(self, name: str) -> ResolvedRecipe | None:
        """What `recipe_config` stored; None before it did, or where another version of the code wrote it."""
        return ResolvedRecipe.stored(self.settings.resolved_dir / name)

    def resolve(self, name: str, hardware: str) -> ResolvedRecipe:
        """The recipe's file, with the overlays of this profile and of `hardware` laid on it."""
        settings = self.settings
        recipe = load_recipe(name, settings.config_dir, settings.profile, hardware, settings.accepted_dir)
        return ResolvedRecipe(profile=settings.profile, hardware=hardware, recipe=recipe)

    def link(self, page: Path) -> dg.UrlMetadataValue:
        """A page under reports/ as a link that a browser opens; by its place there, so that a moved home keeps it."""
        place = page.resolve().relative_to(self.settings.reports_dir.resolve())
        return dg.MetadataValue.url(f"{self.settings.reports_url.rstrip('/')}/{quote(place.as_posix())}")

    def now(self) -> datetime:
        return datetime.now(UTC)

    def archive(self) -> Archive:
        """Every run that reads or writes captures comes by here: a forgetting that was cut short goes on first."""
        from persona_dagster.lineage.forget import resume
        from persona_dagster.lineage.redaction import scrubber

        resume(self.settings)
        return Archive(self.settings.archive_url or self.settings.raw_dir, scrub=scrubber(self.settings))

    def mixes(self, recipe: str, *digests: str) -> Versions:
        return Versions(recipe_mixes(self.settings, recipe, *digests), MixManifest.FILE)

    def adapters(self, recipe: str) -> Versions:
        return Versions(self.settings.adapters_dir / recipe, RunCard.FILE)

    def generations(self, recipe: str) -> Versions:
        return Versions(self.settings.generations_dir / recipe, "generations.parquet")

    def reports(self, recipe: str) -> Versions:
        return Versions(self.settings.reports_dir / recipe, Metrics.FILE)

    @contextmanager
    def transport(self) -> Iterator[Transport]:
        """The way to the sites: the replica on loopback in tiny and sample, the sites themselves in live."""
        settings = self.settings
        if settings.profile == "live":
            yield Transport.live(settings)
            return
        from persona_dagster.sample.clock import Clock
        from persona_dagster.sample.content_loader import load, tiny
        from persona_dagster.sample.replica import serve

        content = tiny() if settings.profile == "tiny" else load()
        # A replica's port is soon another one's: what it asked to wait goes with it.
        with (
            serve(content=content, clock=Clock(settings.replica_dir)) as replica,
            TemporaryDirectory(prefix="persona-leases-") as leases,
        ):
            yield Transport(rewrites=replica.rewrites, chromium=settings.chromium, leases=Path(leases))


class TableIOManager(dg.IOManager):
    """Frames as Parquet, a file a partition of a table, read back through DuckDB.

    Partitions are files of their own, so boards are written side by side, and no reader waits for a writer. A
    partition that was never materialised is absent, not an error.

    No ConfigurableIOManager: that would show a folder of this machine in every launchpad, and freeze it in saved runs.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        table = context.asset_key.to_user_string()
        partition = context.partition_key if context.has_partition_key else WHOLE
        path = self.tables.write(table, partition, obj, SCHEMAS.get(table))
        upstream = {name: SCHEMAS[name] for name in UPSTREAM.get(table, ())}
        context.add_output_metadata(
            {
                "dagster/row_count": obj.height,
                "dagster/column_schema": column_schema(obj),
                "dagster/column_lineage": column_lineage(table, obj.columns, upstream),
                "parquet": dg.MetadataValue.path(str(path)),
            }
        )

    def load_input(self, context: dg.InputContext) -> pl.DataFrame | pl.LazyFrame:
        """The rows, or where the asset asks for a LazyFrame, the files: it need not hold all columns."""
        table = context.asset_key.to_user_string()
        keys = list(context.asset_partition_keys if context.has_asset_partitions else [WHOLE])
        rows = self.tables.scan(table, SCHEMAS[table], keys)
        return rows if context.dagster_type.typing_type is pl.LazyFrame else rows.collect()
