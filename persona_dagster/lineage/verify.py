"""Holds every store against what it says of itself, and makes anew what can be derived."""

from __future__ import annotations

import shutil

import polars as pl

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest
from persona_dagster.corpus.tables import Tables
from persona_dagster.lineage import backup, backup_copies, stored_artifacts, tombstones
from persona_dagster.lineage.forget_plan import SOURCES
from persona_dagster.settings import Settings


def verify(settings: Settings) -> list[str]:
    """One line a fault; none when all is well."""
    return [*_stored(settings), *_forgotten(settings)]


def _stored(settings: Settings) -> list[str]:
    archive = Archive(settings.archive_url or settings.raw_dir)
    found = [fault for source in SOURCES for board in archive.boards(source) for fault in archive.verify(source, board)]
    for path in sorted(settings.tables_dir.rglob("*.parquet")):
        try:
            pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            found.append(f"{path}: cannot be read ({error}); materialise that table again")
    for mix in stored_artifacts.mixes(settings):
        manifest = MixManifest.read(mix.folder)
        if manifest.digest != mix.digest:
            found.append(f"{mix.folder}: its manifest is of {manifest.digest}; materialise `mix` again")
    for folder in backup_copies.registered(settings.home):
        if folder.is_dir():
            try:
                backup.verify(folder)
            except backup.BackupError as error:
                found.append(str(error))
    return found


def _forgotten(settings: Settings) -> list[str]:
    found = tombstones.faults(settings.home)
    stones = tombstones.read(settings.home)
    docs = {doc for stone in stones for doc in stone.docs}
    authors = {key for stone in stones for key in stone.authors}
    posts = stored_artifacts.posts(settings)
    back = posts.filter(pl.col("doc_id").is_in(list(docs)) | pl.col("author_key").is_in(list(authors)))
    found += [f"{doc}: forgotten, and in a table" for doc in back["doc_id"]]
    for mix in stored_artifacts.mixes(settings):
        held = docs & set(mix.provenance()["doc_ids"].explode().drop_nulls())
        found += [f"{doc}: forgotten, and in the mix {mix.recipe}/{mix.digest}" for doc in sorted(held)]
    archive = Archive(settings.archive_url or settings.raw_dir)
    for name in sorted({name for stone in stones for name in stone.keys}):
        source, board, key = name.split("/", 2)
        if board in archive.boards(source) and any(True for _ in archive.index(source, board).with_key(key)):  # type: ignore[arg-type]
            found.append(f"{name}: forgotten, and in the archive")
    return found


def rebuild(settings: Settings) -> list[str]:
    """What was made anew; tables and all behind them are made by materialising `posts` and what follows it."""
    made = []
    for index in sorted(settings.raw_dir.glob("*/*/.index.sqlite*")):
        index.unlink()
    archive = Archive(settings.archive_url or settings.raw_dir)
    for source in SOURCES:
        for board in archive.boards(source):
            made += [f"index of {source}/{board}: {len([*archive.index(source, board).every()])} captures"]
    if settings.tables_dir.is_dir():
        made.append(f"catalogue: {Tables(settings.tables_dir).catalogue()}")
    if settings.dedup_dir.exists():
        shutil.rmtree(settings.dedup_dir)
        made.append("what is remembered of compared texts: made by the next run of `posts`")
    return made
