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
from urllib.parse import quote

import dagster as dg
import duckdb
import polars as pl
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from persona_dagster.archive.archive import Archive
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.config.sources import Sources, load_sources
from persona_dagster.conversation.mix_store import recipe_mixes
from persona_dagster.corpus.warehouse import Warehouse, write_parquet
from persona_dagster.crawl.transport import Transport
from persona_dagster.records import DIALOGUE_SCHEMA, POST_SCHEMA, SPLIT_SCHEMA
from persona_dagster.settings import Settings

WHOLE = "all"  # the partition name of an asset without partitions
LOCK_PATIENCE = Retrying(
    retry=retry_if_exception_type(duckdb.IOException),
    wait=wait_random(0.2, 1.0),
    stop=stop_after_delay(60),
    reraise=True,
)
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
        return Archive(self.settings.archive_url or self.settings.raw_dir)

    def mixes(self, recipe: str, *digests: str) -> Path:
        return recipe_mixes(self.settings, recipe, *digests)

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
    """Frames as DuckDB tables, with a Parquet export that everybody downstream reads.

    Writing takes the database for one transaction a partition; reading never opens it, so no reader waits for the
    writer or blocks it. A partition that was never materialised is absent, not an error.

    No ConfigurableIOManager: that would show a folder of this machine in every launchpad, and freeze it in saved runs.
    """

    def __init__(self, duckdb: DuckDBResource, exports_dir: Path) -> None:
        self.duckdb, self.exports_dir = duckdb, exports_dir

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        table = context.asset_key.to_user_string()
        partition = context.partition_key if context.has_partition_key else WHOLE
        Warehouse(self.duckdb.database, self._connect).replace(table, partition, obj)
        path = self._path(table, partition)
        write_parquet(obj, path)
        context.add_output_metadata({"dagster/row_count": obj.height, "export": dg.MetadataValue.path(str(path))})

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        table = context.asset_key.to_user_string()
        keys = context.asset_partition_keys if context.has_asset_partitions else [WHOLE]
        paths = [path for key in keys if (path := self._path(table, key)).is_file()]
        empty = pl.DataFrame(schema=SCHEMAS[table])
        return pl.concat([empty, *(pl.read_parquet(path) for path in paths)])

    def _connect(self, path: str, /, read_only: bool = False) -> DuckDBPyConnection:
        """Waits for another process's transaction instead of failing on its lock."""
        return LOCK_PATIENCE(duckdb.connect, path, read_only=read_only, config=dict(self.duckdb.connection_config))

    def _path(self, table: str, partition: str) -> Path:
        return self.exports_dir / table / f"{quote(partition, safe='')}.parquet"
