"""Carries a plan out in one home, store by store. Each step can be repeated: what is gone already stays gone.

Tables and mixes lose rows; pages go or have comments cut out; text that was copied elsewhere goes with its line, row or
file; what the user wrote himself is moved to `forgotten/`, with a note.
"""

from __future__ import annotations

import gzip
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path

import orjson
import polars as pl
import zstandard

from persona_dagster import artifacts
from persona_dagster.archive.archive import LISTS, Archive
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.mix import drop_rows
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.lineage import backup_copies, byte_search, stored_artifacts, tombstones
from persona_dagster.lineage.backup_copies import MANIFEST, REGISTER
from persona_dagster.lineage.dagster_storage import (
    forget_postgres,
    forget_sqlite,
    postgres_holds,
    postgres_url,
    without_phrases,
)
from persona_dagster.lineage.forget_plan import SOURCES, ForgetPlan, Home, HomePlan, saying
from persona_dagster.lineage.redaction import blanked, cut
from persona_dagster.records import FORGOTTEN, Capture, Source

LINES = {".jsonl", ".ndjson", ".csv", ".txt", ".md", ".log", ".out", ".err"}  # lose lines, not their life
# Names of rows and posts stand here on purpose; a seal is written anew.
RECORDS = {FORGOTTEN, "rows.json", MANIFEST, REGISTER}
PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
# What assets, programs and Dagster make. Whatever else lies under the home is the user's own.
MADE = {
    "adapters", "backups", "cache", "checkpoints", "dagster", "exports", "generations", "harness", "intake", "jobs",
    "judge", "labels", "logs", "mix", "raw", "releases", "reports", "tables", "warehouse", "weights",
}  # fmt: skip
# Not `quarantine`: files that could not be taken in lie there, and are searched as all others.
JOURNAL, SET_ASIDE = "forgetting", "forgotten"
TEXTS = ("text_raw", "text", "quoted", "title")


def skipped(home: Home) -> set[Path]:
    """What is no store: base models made again at will, the site that the sample is scraped from, what forgetting keeps
    itself, and what names what must not come back (an article's own text may hold its address)."""
    settings = home.settings
    stones = {settings.home / tombstones.FOLDER, *settings.raw_dir.glob(f"*/*/{tombstones.FOLDER}")}
    own = {settings.home / JOURNAL, settings.home / SET_ASIDE}
    return {settings.models_dir, settings.replica_dir, *own, *stones}


def holding(home: Home, needles: Collection[bytes], skip: Collection[Path] = ()) -> list[Path]:
    """The files of this home that hold a needle."""
    left_out = {*skipped(home), *skip}
    return sorted({path for root in home.roots for path in byte_search.find(root, needles, left_out)})


def forget_captures(home: Home, of: HomePlan, pieces: list[str]) -> int:
    """Drops pages, cuts comments out of others, and blanks quotes; returns the captures changed."""
    archive, changed, reason = home.archive(), 0, {"why": "forgotten on request"}
    keys: dict[tuple[Source, str], list[str]] = defaultdict(list)
    for name in of.keys:
        source, board, key = name.split("/", 2)
        keys[source, board].append(key)  # type: ignore[index]
    for (source, board), names in keys.items():
        changed += archive.forget(source, board, names, "forgotten on request")
    spelled = {spelling for piece in pieces for spelling in byte_search.spellings(piece)}

    def edited(capture: Capture, ids: set[str]) -> bytes | None:
        body = cut(capture, ids, home.settings) if ids else capture.body
        return None if body is None else blanked(body, spelled)

    for name in [*of.quoting, *of.cuts]:  # who commented on a page may be quoted there as well
        changed += _redact(archive, name, partial(edited, ids=set(of.cuts.get(name, ()))), reason)
    hits: dict[tuple[Source, str], set[str]] = defaultdict(set)
    for source, board, hit in byte_search.holding(_lists(archive), spelled):  # that excerpt it without naming it
        hits[source, board].add(hit)
    for (source, board), bodies in hits.items():
        changed += archive.rewrite(source, board, lambda seen, bodies=bodies: seen.sha256 in bodies)  # type: ignore[misc]
    return changed


def _lists(archive: Archive) -> Iterator[tuple[tuple[Source, str, str], bytes]]:
    """Every archived listing: source, board and hash, and its body."""
    for source in SOURCES:
        for board in archive.boards(source):
            for seen in archive.index(source, board).every():
                if seen.kind in LISTS and (page := archive.capture(source, board, seen)):
                    yield (source, board, seen.sha256), page.body


def _redact(archive: Archive, name: str, edit: Callable, reason: dict[str, str]) -> int:
    source, board, old = name.split("/", 2)
    board, _, old = f"{board}/{old}".rpartition("/")
    seen = next(iter(archive.index(source, board).with_body(old)), None)
    capture = archive.capture(source, board, seen) if seen else None  # type: ignore[arg-type]
    if capture is None:
        return 0  # done already
    body = edit(capture)
    if body is None:  # a page that cannot be taken apart goes whole, and is not fetched again
        return archive.forget(source, board, [capture.key], "forgotten on request")  # type: ignore[arg-type]
    return archive.redact(source, board, {old: body}, reason) if body != capture.body else 0  # type: ignore[arg-type]


def forget_mixes(home: Home, plan: ForgetPlan, of: HomePlan) -> list[str]:
    """Writes every mix anew that holds a row of the plan; and sweeps up what a killed rewriting left."""
    personas, pairs = load_personas(home.settings.config_dir, home.settings.accepted_dir), set(of.pairs)
    for mix in list(stored_artifacts.mixes(home.settings)):
        hit = pl.col("doc_ids").list.set_intersection(pl.lit(plan.docs, pl.List(pl.String))).list.len() > 0
        rows = mix.provenance().filter(hit | pl.col("pair_id").is_in(list(pairs)))
        if rows.height:
            drop_rows(mix.folder, set(rows["row_id"]), personas)
    for folder in home.settings.mix_dir.glob("*/*/"):
        if not (folder / "manifest.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
    return [home.label + name for name in of.mixes]


def forget_rows(home: Home, plan: ForgetPlan, of: HomePlan, pieces: list[str]) -> dict[str, int]:
    """Tables are rewritten file by file: rows go, and rows of others lose the lines that they quote."""
    removed: dict[str, int] = {}
    for path in sorted(home.settings.tables_dir.rglob("*.parquet")):
        frame = pl.read_parquet(path)
        kept = _unquoted(_without(frame, plan.docs, of.pairs), pieces)
        if not kept.equals(frame):
            table = path.parent.name if path.parent != home.settings.tables_dir else path.stem
            removed[table] = removed.get(table, 0) + frame.height - kept.height
            write_parquet(kept, path)
    # Made anew when needed: the index of compared texts, vectors, and rows as they were cleaned.
    for cache in (home.settings.dedup_dir, home.settings.vectors_dir, home.settings.cleaned_dir):
        shutil.rmtree(cache, ignore_errors=True)
    return removed


def _without(frame: pl.DataFrame, docs: list[str], pairs: list[str]) -> pl.DataFrame:
    """`frame` without the rows of these posts and dialogues, whichever of the columns it has."""
    if {"source", "board", "post_id"} <= set(frame.columns):
        frame = frame.filter(~pl.concat_str("source", "board", "post_id", separator=":").is_in(docs))
    if "doc_ids" in frame.columns:
        frame = frame.filter(pl.col("doc_ids").list.set_intersection(pl.lit(docs, pl.List(pl.String))).list.len() == 0)
    for name in ("doc_id", "parent_doc") if "evidence" in frame.columns else ():  # edges of the reply graph
        frame = frame.filter(~pl.col(name).is_in(docs).fill_null(value=False))
    if "pair_id" in frame.columns:
        frame = frame.filter(~pl.col("pair_id").is_in(pairs))
    return frame


def _unquoted(frame: pl.DataFrame, pieces: list[str]) -> pl.DataFrame:
    columns = [name for name in TEXTS if frame.schema.get(name) == pl.String]
    if pieces and columns:
        hit = saying(frame.select(columns), pieces)
        needles = [piece.encode() for piece in pieces]
        if hit.any():
            rows = hit.arg_true()
            for name in columns:
                fresh = [None if text is None else without_phrases(text, needles) for text in frame[name].gather(rows)]
                frame = frame.with_columns(frame[name].clone().scatter(rows, pl.Series(fresh, dtype=pl.String)))
    if pieces and "post_id" not in frame.columns:  # a table made of posts
        frame = frame.filter(~saying(frame, pieces))
    return frame


def mark_models(home: Home, of: HomePlan, stone: tombstones.Tombstone) -> list[str]:
    """Marks the adapters of the plan and what was exported of them as stale, with the rows named; returns the names of
    exports and releases. What a training of theirs could be resumed from goes."""
    for adapter in stored_artifacts.adapters(home.settings):
        if rows := of.adapters.get(f"{adapter.recipe}/{adapter.folder.name}"):
            _mark(adapter.folder, rows, stone)
    stale = []
    for model in stored_artifacts.models(home.settings):
        if rows := of.adapters.get(f"{model.recipe}/{model.adapter}"):
            _mark(model.folder, rows, stone)
            stale.append(f"{model.kind} {home.label}{model.name}")
    for recipe in {name.split("/")[0] for name in (*of.adapters, *of.mixes)}:
        shutil.rmtree(home.settings.home / "checkpoints" / recipe, ignore_errors=True)
    return stale


def _mark(folder: Path, rows: list[str], stone: tombstones.Tombstone) -> None:
    path = folder / FORGOTTEN
    before = orjson.loads(path.read_bytes())["rows"] if path.is_file() else []
    artifacts.write_json(path, {"at": stone.at, "tombstone": stone.name, "rows": sorted({*before, *rows})})


def forget_files(home: Home, of: HomePlan, needles: set[bytes]) -> tuple[list[str], list[str]]:
    """Everything else. Returns the files rewritten or deleted, and the user's own that were moved aside. Packed backups
    within the home go too: the next one is made of what is left."""
    settings = home.settings
    rows = {row.encode() for rows in of.adapters.values() for row in rows}
    wanted = needles | rows
    changed, moved = [], []
    for path in holding(home, wanted, {settings.raw_dir, settings.tables_dir}):
        if path.name in RECORDS or path.name.endswith(("-wal", "-shm", "-journal")):
            continue
        if _users_own(home, path) and not home.label:
            if path.is_relative_to(settings.config_dir):
                continue  # configuration that steers everything is named in the report, and edited by hand
            if byte_search.find(path.parent, needles, {other for other in path.parent.iterdir() if other != path}):
                moved.append(_set_aside(home, path))
        else:
            _forget_in_file(path, wanted)
            changed.append(home.name(path))
    if (url := postgres_url(backup_copies.dagster_home(settings))) and not home.label and forget_postgres(url, wanted):
        changed.append("Dagster's Postgres")
    return changed, moved


def _users_own(home: Home, path: Path) -> bool:
    return path.is_relative_to(home.settings.home) and path.relative_to(home.settings.home).parts[0] not in MADE


def _set_aside(home: Home, path: Path) -> str:
    """Moved, not deleted: it is the user's, and may hold more than what was forgotten."""
    place = home.settings.home / SET_ASIDE / path.relative_to(home.settings.home)
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    artifacts.put(path, place)
    note = "This file of yours holds text that was forgotten. Nothing reads it here: edit it and put it back, or not."
    artifacts.write_text(place.with_name(f"{place.name}.note.txt"), f"{note}\nIt stood at {home.name(path)}\n")
    return home.name(place)


def left(home: Home, needles: set[bytes], pieces: list[str]) -> list[str]:
    """Where a needle still stands, as far as the stores can be searched."""
    found = [home.name(path) for path in holding(home, needles)]
    if home.settings.archive_url is not None:
        archive = home.archive()
        bodies = ((f"{s}/{b}", c.body) for s in SOURCES for b in archive.boards(s) for c in archive.every(s, b))
        found += sorted(byte_search.holding(bodies, needles))
    if (
        not home.label
        and (url := postgres_url(backup_copies.dagster_home(home.settings)))
        and postgres_holds(url, needles)
    ):
        found.append("Dagster's Postgres")
    return found


def _unpacked(path: Path, packing: str) -> bytes:
    data = path.read_bytes()
    if packing == ".gz":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(data).read() if packing == ".zst" else data


def _forget_in_file(path: Path, needles: set[bytes]) -> None:
    packing = path.suffix if path.suffix in (".gz", ".zst") else ""
    if path.suffix in (".db", ".sqlite"):
        forget_sqlite(path, needles)
    elif path.suffix == ".parquet":
        frame = pl.read_parquet(path)
        rows = ((at, orjson.dumps(row, default=str)) for at, row in enumerate(frame.iter_rows()))
        hit = byte_search.holding(rows, needles)
        write_parquet(frame.filter(pl.Series([at not in hit for at in range(frame.height)], dtype=pl.Boolean)), path)
    elif Path(path.name.removesuffix(packing)).suffix in LINES:
        lines = _unpacked(path, packing).splitlines(keepends=True)
        hit = byte_search.holding(enumerate(lines), needles)
        kept = b"".join(line for at, line in enumerate(lines) if at not in hit)
        if byte_search.occurring(kept, needles):  # in another encoding a line is no line
            path.unlink()
        else:
            artifacts.write_bytes(path, PACK[packing](kept))
    else:
        path.unlink()
