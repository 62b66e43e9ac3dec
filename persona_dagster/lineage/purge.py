"""Takes posts and dialogues out of one home, store by store in flow order, and text out of whatever else holds it.

Tables lose rows; archives, mixes and the database are written anew; text files lose lines; Dagster's databases are
blotted; what cannot be edited (a report, a picture, a tarball) is deleted, and made again by its asset.
"""

from __future__ import annotations

import gzip
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import orjson
import polars as pl
import zstandard

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import write_bytes, write_json
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.mix import drop_rows
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.lineage import search, stores, tombstones
from persona_dagster.lineage.copies import MANIFEST, REGISTER
from persona_dagster.lineage.sqlite import blot_database
from persona_dagster.records import FORGOTTEN, Source
from persona_dagster.settings import Settings

SOURCES: tuple[Source, ...] = get_args(Source)
LINES = {".jsonl", ".ndjson", ".csv", ".txt", ".md", ".log", ".out", ".err"}  # lose lines, not their life
# Names of rows and posts stand here on purpose; a seal is written anew.
RECORDS = {FORGOTTEN, "rows.json", MANIFEST, REGISTER}
PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
Key = tuple[Source, str, str]  # source, board, key of a capture


class StoreBusyError(ValueError):
    """Another program writes to a store; the message says which, and that nothing of it was touched."""


@dataclass(frozen=True, slots=True)
class Home:
    """One home to purge: the operator's, or a copy of it. `roots`: the folders that are searched."""

    settings: Settings
    roots: tuple[Path, ...]
    label: str = ""  # before file names in the report

    def archive(self) -> Archive:
        return Archive(self.settings.archive_url or self.settings.raw_dir)

    def name(self, path: Path) -> str:
        return self.label + next(str(path.relative_to(root)) for root in self.roots if path.is_relative_to(root))

    def skipped(self) -> set[Path]:
        """What is no store: base models made again at will, the site that the sample is scraped from, and tombstones,
        which name what must not come back (an article's own text may hold its address)."""
        stones = {self.settings.home / tombstones.FOLDER, *self.settings.raw_dir.glob(f"*/*/{tombstones.FOLDER}")}
        return {self.settings.models_dir, self.settings.replica_dir, *stones}

    def holding(self, needles: Collection[bytes], skip: Iterable[Path] = ()) -> list[Path]:
        """The files of this home that hold a needle."""
        left_out = {*self.skipped(), *skip}
        return sorted({path for root in self.roots for path in search.find(root, needles, left_out)})


def forget_captures(home: Home, keys: Iterable[Key], needles: set[bytes], author: str | None) -> int:
    """Drops the captures for good; then any other that shows a line of theirs or, in a listing, the author."""
    archive, dropped = home.archive(), 0
    boards: dict[tuple[Source, str], list[str]] = {}
    for source, board, key in keys:
        boards.setdefault((source, board), []).append(key)
    for (source, board), names in boards.items():
        dropped += archive.forget(source, board, names, "forgotten on request")
    # As pages and payloads name an author: `>name (nick)<`, `"name"`; never a mere word of somebody's text.
    named = re.compile(rb'[>"]\s*' + re.escape(author.encode()) + rb'\s*[("<]') if author else None
    for source in SOURCES:
        for board in archive.boards(source):
            hit = search.holding(((c.sha256, c.body) for c in archive.every(source, board)), needles)
            if named:
                hit |= {c.sha256 for c in archive.every(source, board) if named.search(c.body)}
            if hit:
                dropped += archive.rewrite(source, board, lambda capture, hit=hit: capture.sha256 in hit)  # type: ignore[misc]
    return dropped


def forget_mixes(home: Home, docs: list[str]) -> dict[str, pl.DataFrame]:
    """Writes every mix anew that holds a row made of these posts; the rows dropped (PROVENANCE_SCHEMA) by
    `recipe/digest`."""
    personas = load_personas(home.settings.config_dir)
    dropped: dict[str, pl.DataFrame] = {}
    for mix in list(stores.mixes(home.settings)):
        hit = pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() > 0
        rows = mix.provenance().filter(hit)
        if rows.height:
            drop_rows(mix.folder, set(rows["row_id"]), personas)
            dropped[f"{mix.recipe}/{mix.digest}"] = rows
    return dropped


def forget_rows(home: Home, docs: list[str], pairs: list[str]) -> dict[str, int]:
    """Tables are rewritten file by file; the catalogue holds no rows."""
    removed: dict[str, int] = {}
    for path in sorted(home.settings.tables_dir.rglob("*.parquet")):
        frame = pl.read_parquet(path)
        kept = _without(frame, docs, pairs)
        if kept.height < frame.height:
            table = path.parent.name if path.parent != home.settings.tables_dir else path.stem
            removed[table] = removed.get(table, 0) + frame.height - kept.height
            write_parquet(kept, path)
    # The index of compared texts holds hashes alone, and is made anew by the next run of `posts`.
    shutil.rmtree(home.settings.dedup_dir, ignore_errors=True)
    return removed


def _without(frame: pl.DataFrame, docs: list[str], pairs: list[str]) -> pl.DataFrame:
    """`frame` without the rows of these posts and dialogues, whichever of the columns it has."""
    if {"source", "board", "post_id"} <= set(frame.columns):
        frame = frame.filter(~pl.concat_str("source", "board", "post_id", separator=":").is_in(docs))
    if "doc_ids" in frame.columns:
        frame = frame.filter(pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() == 0)
    if "pair_id" in frame.columns:
        frame = frame.filter(~pl.col("pair_id").is_in(pairs))
    return frame


def mark_adapters(
    home: Home, dropped: dict[str, pl.DataFrame], pairs: list[str], stone: tombstones.Tombstone
) -> dict[str, list[str]]:
    """Marks the adapters that were trained on a dropped row or on one of `pairs` as stale, and names the rows. What a
    training of theirs could be resumed from goes. An adapter says itself what it saw, whether or not its mix is still
    there; an older one is asked through its mix."""
    trained = {name: rows.filter(split="train")["row_id"].to_list() for name, rows in dropped.items()}
    forgotten = {*pairs, *(pair for rows in dropped.values() for pair in rows["pair_id"])}
    marked: dict[str, list[str]] = {}
    for adapter in stores.adapters(home.settings):
        saw = adapter.rows
        seen = sorted(row for row in saw if row.rsplit("-", 1)[0] in forgotten)
        rows = seen if saw else trained.get(f"{adapter.recipe}/{adapter.mix_digest}", [])
        if not rows:
            continue
        _mark(adapter.folder, rows, stone)
        marked[f"{home.label}{adapter.recipe}/{adapter.folder.name}"] = rows
    for recipe in {name.removeprefix(home.label).split("/")[0] for name in {*marked, *dropped}}:
        shutil.rmtree(home.settings.home / "checkpoints" / recipe, ignore_errors=True)
    return marked


def mark_models(home: Home, marked: dict[str, list[str]], stone: tombstones.Tombstone) -> list[str]:
    """Marks what was exported of the marked adapters, or laid out for the Hub: stale as they are. Returns the names."""
    stale = []
    for model in stores.models(home.settings):
        if rows := marked.get(f"{home.label}{model.recipe}/{model.adapter}"):
            _mark(model.folder, rows, stone)
            stale.append(f"{model.kind} {home.label}{model.name}")
    return stale


def _mark(folder: Path, rows: list[str], stone: tombstones.Tombstone) -> None:
    path = folder / FORGOTTEN
    before = orjson.loads(path.read_bytes())["rows"] if path.is_file() else []
    mark = {"at": stone.at, "tombstone": stone.name, "rows": sorted({*before, *rows})}
    write_json(path, mark)


def forget_files(home: Home, needles: set[bytes], row_ids: Iterable[str]) -> list[str]:
    """Everything else: lines, rows and stored values go where a file has them, other files go whole. Returns the
    files rewritten or deleted. Packed backups within the home go too: the next one is made of what is left."""
    settings = home.settings
    own = {settings.raw_dir, settings.tables_dir, settings.mix_dir}
    wanted = needles | {row.encode() for row in row_ids}
    changed = []
    for path in home.holding(wanted, own):
        if path.name not in RECORDS and not path.name.endswith(("-wal", "-shm", "-journal")):
            _forget_in_file(path, wanted)
            changed.append(home.name(path))
    return changed


def _unpacked(path: Path, packing: str) -> bytes:
    data = path.read_bytes()
    if packing == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(data).read() if packing == ".zst" else data


def _forget_in_file(path: Path, needles: set[bytes]) -> None:
    packing = path.suffix if path.suffix in (".gz", ".zst") else ""
    if path.suffix in (".db", ".sqlite"):
        try:
            blot_database(path, needles)
        except sqlite3.OperationalError as error:
            raise StoreBusyError(f"{path}: {error}; stop Dagster and forget again") from error
    elif path.suffix == ".parquet":
        frame = pl.read_parquet(path)
        rows = ((at, orjson.dumps(row, default=str)) for at, row in enumerate(frame.iter_rows()))
        hit = search.holding(rows, needles)
        write_parquet(frame.filter(pl.Series([at not in hit for at in range(frame.height)], dtype=pl.Boolean)), path)
    elif Path(path.name.removesuffix(packing)).suffix in LINES:
        lines = _unpacked(path, packing).splitlines(keepends=True)
        hit = search.holding(enumerate(lines), needles)
        kept = b"".join(line for at, line in enumerate(lines) if at not in hit)
        write_bytes(path, PACK[packing](kept))
    else:
        path.unlink()
