"""Backup and restore of everything that cannot be made again for free, verified by hash.

Dagster's storage is copied first and the archive last: what an event or an adapter speaks of is then always there.
Models and checkpoints are caches and stay out. The key of the pseudonyms is in: keep a backup as safe as the home.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from persona_dagster import artifacts
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.filesystem import open_store
from persona_dagster.lineage import backup_copies, forget, tombstones
from persona_dagster.lineage.backup_copies import DAGSTER, MANIFEST, dagster_home, file_sha256
from persona_dagster.lineage.purge import JOURNAL, SET_ASIDE
from persona_dagster.settings import Settings

RAW, RESTORING, SWAP = "raw", ".restoring", ".restore.json"
# What a restore leaves where it is.
KEPT = {tombstones.FOLDER, RESTORING, SWAP, ".forgetting.lock", JOURNAL, backup_copies.REGISTER, SET_ASIDE}
# Downstream before upstream; `raw` goes last, and from wherever PERSONA_ARCHIVE_URL keeps it.
PARTS = (
    "reports", "generations", "adapters", "judge", "mix", "tables", "jobs", "tombstones", "config", "accepted",
    "resolved", "notes", "imports", "intake", "quarantine", "labels", "replica", "author.key",
)  # fmt: skip


MODELS = ("weights", "releases")  # made of adapters and bases, and large: by choice


class BackupError(ValueError):
    """The backup cannot be made or trusted; the message names the file and the cure."""


@dataclass(frozen=True)
class BackupReport:
    folder: Path
    files: int
    megabytes: float
    seconds: float
    forgotten_again: list[str] = field(default_factory=list)  # of a restore: what had been forgotten since

    def markdown(self) -> str:
        text = (
            f"{self.files} files, {self.megabytes:.1f} MB in {self.seconds:.1f} s, every hash verified: {self.folder}"
        )
        again = f"\nforgotten since that backup, and removed again: {', '.join(self.forgotten_again)}"
        return text + (again if self.forgotten_again else "")


def backup(settings: Settings, target: Path, *, models: bool = False) -> BackupReport:
    """Writes a whole backup to the new folder `target`, with exports and releases if `models`. Runs may go on
    meanwhile. Raises `BackupError`."""
    if target.exists():
        raise BackupError(f"{target} is there already; name a new folder")
    if target.resolve().is_relative_to(settings.home.resolve()):
        raise BackupError(f"{target} lies within {settings.home}: it would be lost with it; name a folder elsewhere")
    started = time.monotonic()
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _copy_tree(dagster_home(settings), partial / DAGSTER, _copy_stored)
    if settings.mix_url:
        MixStore(settings.mix_url).fetch_all(settings.mix_dir)
    for part in (*(MODELS if models else ()), *PARTS):
        _copy_tree(settings.home / part, partial / part, _copy_stored)
    filesystem, root = open_store(settings.archive_url or settings.raw_dir)
    if filesystem.exists(root):
        filesystem.get(f"{root}/", str(partial / RAW) + "/", recursive=True)
    if not any(_files(partial)):
        shutil.rmtree(partial)
        raise BackupError(f"{settings.home}: nothing there to back up; is PERSONA_HOME right?")
    files = backup_copies.seal(partial)
    backup_copies.register(settings.home, target)  # before it is there: a forgetting must not miss it
    artifacts.put(partial, target)
    return _report(target, files, started)


def verify(source: Path) -> dict[str, list[int | str]]:
    """The files of a backup by name, after every size and hash was found right. Raises `BackupError`."""
    if not (source / MANIFEST).is_file():
        raise BackupError(f"{source}: no {MANIFEST}, so not a whole backup")
    files: dict[str, list[int | str]] = orjson.loads((source / MANIFEST).read_bytes())["files"]
    there = dict(_files(source))
    wrong = [
        name
        for name, (size, digest) in files.items()
        if name not in there or there[name].stat().st_size != size or file_sha256(there[name]) != digest
    ]
    if wrong or (wrong := sorted(set(there) - set(files))):
        raise BackupError(f"{source}: {len(wrong)} files are not as they were written, {wrong[0]} first; use another")
    return files


def restore(settings: Settings, source: Path) -> BackupReport:
    """Puts a backup in the place of the home's contents. What was there is moved aside, not deleted; tombstones stay,
    with the backup's added before anything is moved, and what they forbid is forgotten again. Killed on the way, it
    goes on at the next start. Stop Dagster first. Raises `BackupError`."""
    started = time.monotonic()
    resume_restore(settings)
    files = verify(source)
    storage, home = dagster_home(settings), settings.home
    fresh = home / RESTORING
    shutil.rmtree(fresh, ignore_errors=True)
    inside = storage.resolve().is_relative_to(home.resolve())
    remote = settings.archive_url is not None
    fresh.mkdir(parents=True)
    tombstones.write(home, *tombstones.read(source))
    for name in files:
        part = name.split("/", 1)[0]
        if (part == DAGSTER and not inside) or (part == RAW and remote) or part in KEPT:
            continue
        copied = fresh / (storage.resolve().relative_to(home.resolve()) if part == DAGSTER else part)
        _copy(source / name, copied.joinpath(*Path(name).parts[1:]))
    swap = {
        "source": str(source.resolve()),
        "aside": f"{home}.{backup_copies.ASIDE}-{datetime.now(UTC):%Y%m%dT%H%M%S}",
        "old": sorted(path.name for path in home.iterdir() if path.name not in KEPT),
        "new": sorted(path.name for path in fresh.iterdir()),
    }
    artifacts.write_json(home / SWAP, swap)
    return _report(home, files, started, resume_restore(settings))


def resume_restore(settings: Settings) -> list[str]:
    """Ends a restore that stands ready or was cut short; the ids forgotten again. Each step can be repeated."""
    home = settings.home
    if not (home / SWAP).is_file():
        return []
    swap = orjson.loads((home / SWAP).read_bytes())
    fresh, source, aside = home / RESTORING, Path(swap["source"]), Path(swap["aside"])
    _swap(home, fresh, aside, swap["old"], swap["new"])
    backup_copies.register(home, source)
    storage = dagster_home(settings)
    if not storage.resolve().is_relative_to(home.resolve()) and (source / DAGSTER).is_dir():
        beside = storage.with_name(f".{storage.name}.restoring")
        shutil.rmtree(beside, ignore_errors=True)
        _copy_tree(source / DAGSTER, beside, _copy)
        old = storage.with_name(f"{storage.name}{aside.name.removeprefix(home.name)}")
        if storage.exists() and not old.exists():
            artifacts.put(storage, old)
        shutil.rmtree(storage, ignore_errors=True)
        artifacts.put(beside, storage)
    if settings.archive_url is not None and (source / RAW).is_dir():
        filesystem, root = open_store(settings.archive_url)
        filesystem.put(str(source / RAW) + "/", f"{root}/", recursive=True)
    if settings.mix_url:
        MixStore(settings.mix_url).push(settings.mix_dir)
    again = forget.forget_again(settings)
    (home / SWAP).unlink()
    shutil.rmtree(fresh, ignore_errors=True)
    return again


def _swap(home: Path, fresh: Path, aside: Path, old: list[str], new: list[str]) -> None:
    """What was there goes aside, name by name, and the new takes its place."""
    aside.mkdir(exist_ok=True)
    for name in sorted({*old, *new}):
        swapped = name in new and not (fresh / name).exists()
        if name in old and not swapped and not (aside / name).exists() and (home / name).exists():
            artifacts.put(home / name, aside / name)
        if name in new and not swapped:
            artifacts.put(fresh / name, home / name)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST and not backup_copies.derived(path):
            yield path.relative_to(folder).as_posix(), path


def _copy_tree(source: Path, target: Path, copy: Callable[[Path, Path], None]) -> None:
    if source.is_file():
        copy(source, target)
    elif source.is_dir():
        for name, path in _files(source):
            if not path.is_socket():
                copy(path, target / name)


def _copy_stored(source: Path, target: Path) -> None:
    """SQLite is copied by its own backup, which waits for writers; its side files are in the copy then."""
    if source.name.endswith((".db-wal", ".db-shm", ".db-journal", ".lock", ".pid")):
        return
    if source.suffix != ".db":
        _copy(source, target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as stored, closing(sqlite3.connect(target)) as to:
        stored.backup(to)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _report(
    folder: Path, files: dict[str, list[int | str]], started: float, again: list[str] | None = None
) -> BackupReport:
    size = sum(int(size) for size, _ in files.values()) / 1e6
    return BackupReport(folder, len(files), size, time.monotonic() - started, again or [])
