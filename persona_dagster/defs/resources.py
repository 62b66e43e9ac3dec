"""What assets are given: the project (settings and configuration), the ways to the sites, the tables.

Nothing here touches disk or network before an asset runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import Metrics, MixManifest, RunCard, Versions
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.conversation.mix_store import recipe_mixes
from persona_dagster.corpus.tables import WHOLE, Tables
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import DIALOGUE_SCHEMA, POST_SCHEMA, SPLIT_SCHEMA
from persona_dagster.settings import Settings

SCHEMAS = {
    **dict.fromkeys(("ptt_posts", "dcard_posts", "threads_posts", "notes", "posts"), POST_SCHEMA),
    **dict.fromkeys(("dialogues", "capybara_dialogues"), DIALOGUE_SCHEMA),
    "split": SPLIT_SCHEMA,
}


@dataclass(frozen=True)
class ProjectResource:
    """One loading of the definitions: settings and sources, read once. Personas and recipes are read when asked,
    so that a long-lived code server sees an edited file without a reload."""

    settings: Settings
    sources: Sources

    @classmethod
    def open(cls, settings: Settings) -> "ProjectResource":
        return cls(settings, load_sources(settings.config_dir, settings.profile))

    def personas(self) -> Personas:
        return load_personas(self.settings.config_dir)

    def recipe(self, name: str) -> Recipe:
        from persona_dagster.models.hardware import find_hardware

        hardware = self.settings.hardware or find_hardware()
        return load_recipe(name, self.settings.config_dir, self.settings.profile, hardware)

    def recipe_slice(self, name: str) -> dict[str, Any]:
        """Of a recipe, what mix and adapter are made by; what its report asks, and when it retrains, left out."""
        return self.recipe(name).model_dump(mode="json", exclude={"evaluation", "retrain"})

    def evaluation_slice(self, name: str) -> dict[str, Any]:
        return self.recipe(name).evaluation.model_dump(mode="json")

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
            yield Transport(chromium=settings.chromium, cdp_url=settings.cdp_url, headed=settings.headed)
            return
        from persona_dagster.sample.clock import Clock
        from persona_dagster.sample.content import load, tiny
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
        context.add_output_metadata({"dagster/row_count": obj.height, "parquet": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        table = context.asset_key.to_user_string()
        keys = context.asset_partition_keys if context.has_asset_partitions else [WHOLE]
        return self.tables.read(table, SCHEMAS[table], list(keys))
