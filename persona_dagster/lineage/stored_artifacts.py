"""Reads what the graph has stored under PERSONA_HOME, without Dagster: posts, dialogues, mixes, models and reports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from persona_dagster.artifacts import Metrics, MixManifest, RunCard, families
from persona_dagster.records import DIALOGUE_SCHEMA, POST_SCHEMA, SPLIT_SCHEMA
from persona_dagster.settings import Settings

POST_TABLES = ("posts", "notes", "ptt_posts", "dcard_posts", "threads_posts", "chat_posts")
DIALOGUE_TABLES = ("dialogues", "capybara_dialogues")


@dataclass(frozen=True, slots=True)
class StoredMix:
    """One published mix: mix/<recipe>/<digest>."""

    recipe: str
    folder: Path

    @property
    def digest(self) -> str:
        return self.folder.name

    def provenance(self) -> pl.DataFrame:
        return pl.read_parquet(self.folder / "provenance.parquet")


@dataclass(frozen=True, slots=True)
class StoredAdapter:
    """One published adapter: adapters/<recipe>/<digest>, and the mix that it was trained on."""

    recipe: str
    folder: Path
    mix_digest: str | None

    @property
    def rows(self) -> list[str]:
        """The row_ids that it was trained on, as it says itself; empty where it does not."""
        path = self.folder / "rows.json"
        return list(orjson.loads(path.read_bytes())["train"]) if path.is_file() else []


@dataclass(frozen=True, slots=True)
class StoredReport:
    """One published report: reports/<recipe>/<digest>, and the adapter that it judged (None: the base alone)."""

    recipe: str
    folder: Path
    adapter: str | None
    verdict: str


@dataclass(frozen=True, slots=True)
class StoredModel:
    """An adapter in another form: weights/<recipe>/<adapter>/<kind> or, as a release, releases/<recipe>/<digest>."""

    recipe: str
    folder: Path
    kind: str  # merged | gguf | release
    adapter: str  # digest

    @property
    def name(self) -> str:
        return f"{self.recipe}/{self.folder.name if self.kind == 'release' else f'{self.adapter}/{self.kind}'}"


def exported(settings: Settings, table: str, schema: pl.Schema) -> pl.DataFrame:
    """All partitions of a table as exported; empty where nothing was."""
    paths = sorted((settings.tables_dir / table).glob("*.parquet"))
    return pl.concat([pl.DataFrame(schema=schema), *(pl.read_parquet(path) for path in paths)], how="diagonal_relaxed")


def posts(settings: Settings) -> pl.DataFrame:
    """Every post that any table holds, once, with its `doc_id`."""
    frame = pl.concat([exported(settings, table, POST_SCHEMA) for table in POST_TABLES], how="diagonal_relaxed")
    named = frame.with_columns(doc_id=pl.concat_str("source", "board", "post_id", separator=":"))
    return named.unique(["doc_id", "kind"], keep="first", maintain_order=True)


def dialogues(settings: Settings) -> pl.DataFrame:
    return pl.concat([exported(settings, table, DIALOGUE_SCHEMA) for table in DIALOGUE_TABLES], how="diagonal_relaxed")


def split(settings: Settings) -> pl.DataFrame:
    return exported(settings, "split", SPLIT_SCHEMA)


def mixes(settings: Settings) -> Iterator[StoredMix]:
    """Every whole mix on disk, old ones included."""
    for recipe, versions in families(settings.mix_dir, MixManifest.FILE).items():
        yield from (StoredMix(recipe, folder) for folder in sorted(versions.all()))


def adapters(settings: Settings) -> Iterator[StoredAdapter]:
    """Every adapter on disk, old ones included."""
    for recipe, versions in families(settings.adapters_dir, RunCard.FILE).items():
        for folder in sorted(versions.all()):
            yield StoredAdapter(recipe, folder, RunCard.read(folder).mix_digest)


def reports(settings: Settings) -> Iterator[StoredReport]:
    """Every evaluation report on disk, old ones included."""
    for recipe, versions in families(settings.reports_dir, Metrics.FILE).items():
        for folder in sorted(versions.all()):
            metrics = Metrics.read(folder)
            yield StoredReport(recipe, folder, metrics.run.digest if metrics.run else None, metrics.verdict)


def models(settings: Settings) -> Iterator[StoredModel]:
    """Every export and every release on disk, each with the adapter that it was made of."""
    exports = ((card, card.parents[2].name) for card in settings.weights_dir.glob("*/*/*/export.json"))
    releases = ((card, card.parents[1].name) for card in settings.releases_dir.glob("*/*/release.json"))
    for card, recipe in sorted([*exports, *releases]):
        if not card.parent.name.startswith("."):  # being written
            made = orjson.loads(card.read_bytes())
            yield StoredModel(recipe, card.parent, made.get("kind", "release"), made["adapter"])
