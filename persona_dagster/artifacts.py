"""Published files: written whole or not at all, and folders named by their content beside a `latest` that moves last.

The only place where a file is renamed onto a published path, and where the records of published folders (run card,
metrics, mix manifest) and the job files of programs are read and written.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LATEST = "latest"


class ArtifactError(ValueError):
    """A published record or job that cannot be read; the message names the file."""


class NotPublishedError(FileNotFoundError):
    """Nothing was published there yet; the message names the folder and the cure."""


# Files and folders, whole or absent


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path beside `path` for a new file, which takes its place, synced to disk, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path)
    try:
        yield fresh
        put(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` that takes its place, synced to disk, when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(folder)
    fresh.mkdir()
    try:
        yield fresh
        put(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def put(fresh: Path, target: Path) -> Path:
    """Renames the file or folder `fresh` to `target` in the place of what stands there; returns once it is on disk.

    A reader finds the old one or the new one; of a folder, for the time between two renames, neither.
    """
    sync(fresh)
    if target.is_dir() and not target.is_symlink():  # no folder can be renamed onto one that holds something
        old = _beside(target)
        os.rename(target, old)  # noqa: PTH104  (folders: Path.rename reads as a file's)
        os.rename(fresh, target)  # noqa: PTH104
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(fresh, target)  # noqa: PTH105
    _sync_one(target.parent)
    return target


def write_bytes(path: Path, data: bytes) -> Path:
    with writing(path) as fresh:
        fresh.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> Path:
    """`value` as JSON with sorted keys; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, sort_keys=True, default=str)
    return write_text(path, f"{text}\n")


def _beside(path: Path) -> Path:
    """A name of our own in the same folder, hidden, so that no listing takes it for something published."""
    return path.with_name(f".{uuid.uuid4().hex[:12]}.tmp")


def sync(path: Path) -> None:
    """A file, or a folder with all that is in it, on disk: a rename is then worth something after a power cut."""
    for one in [*path.rglob("*"), path] if path.is_dir() else [path]:
        if (one.is_file() or one.is_dir()) and not one.is_symlink():  # no socket, no pipe
            _sync_one(one)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


# Versions


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions of one thing: a folder `<digest>/` each, named by content, and the file `latest` with the newest.

    `holds` is the file that a whole version has; a folder without it (half deleted) counts as absent.
    """

    folder: Path
    holds: str

    def latest(self) -> Path | None:
        """The newest version; None before the first, or where it was deleted."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return self.find((self.folder / LATEST).read_text(encoding="utf-8").strip())
        return None

    def newest(self) -> Path:
        """The newest version. Raises `NotPublishedError` where there is none."""
        if (found := self.latest()) is None:
            raise NotPublishedError(f"{self.folder}: nothing published yet; materialise the asset that makes it")
        return found

    def find(self, digest: str) -> Path | None:
        """The version of this name, if it is there and whole."""
        version = self.folder / digest
        return version if digest and (version / self.holds).is_file() else None

    def all(self) -> list[Path]:
        """Every whole version: the newest first, the others by age."""
        newest = self.latest()
        whole = [path.parent for path in self.folder.glob(f"[!.]*/{self.holds}")]
        return sorted(whole, key=lambda path: (path != newest, -path.stat().st_mtime, path.name))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder for a version whose name is not known yet: `publish` takes it from here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = _beside(self.folder / LATEST)
        fresh.mkdir()
        try:
            yield fresh
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def publish(self, fresh: Path, digest: str, *, point: bool = True) -> Path:
        """The folder `fresh` as version `digest`. One that is there already has the same content, and stays."""
        version = self.find(digest) or put(fresh, self.folder / digest)
        if point:
            self.point(digest)
        return version

    @contextmanager
    def publishing(self, digest: str) -> Iterator[Path]:
        """An empty folder that becomes the newest version `digest` when the block ends well."""
        with self.staging() as fresh:
            yield fresh
            self.publish(fresh, digest)

    def point(self, digest: str) -> None:
        """Makes `digest` the newest version."""
        write_text(self.folder / LATEST, f"{digest}\n")

    def remove(self, digest: str) -> None:
        """Deletes a version, and first the pointer to it."""
        if (newest := self.latest()) is not None and newest.name == digest:
            (self.folder / LATEST).unlink()
        shutil.rmtree(self.folder / digest, ignore_errors=True)

    def prune(self, keep: int) -> list[str]:
        """Deletes all but the `keep` newest versions; returns the names of those deleted. Never the latest."""
        old = [version.name for version in self.all()[max(1, keep) :]]
        for digest in old:
            self.remove(digest)
        return old


def families(folder: Path, holds: str) -> dict[str, Versions]:
    """The `Versions` under `folder` by name: a recipe's each, under mixes, adapters, generations and reports."""
    names = sorted({path.parents[1].name for path in folder.glob(f"[!.]*/[!.]*/{holds}")})
    return {name: Versions(folder / name, holds) for name in names}


# Records


class Record(BaseModel):
    """A typed JSON file in a published folder. Keys that only another version of the code knows are left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    FILE: ClassVar[str]

    folder: Path = Field(Path(), exclude=True)  # where it was read from; not written

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The record in `folder`. Raises `NotPublishedError` where there is none, `ArtifactError` where unreadable."""
        path = folder / cls.FILE
        try:
            value = json.loads(path.read_bytes())
            return cls.model_validate({**value, "folder": folder}, extra="ignore")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotPublishedError(f"{path}: not there; materialise the asset that makes it") from error
        except (ValidationError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{path}: cannot be read ({_first_line(error)}); materialise its asset again"
            ) from error

    @classmethod
    def stored(cls, folder: Path) -> Self | None:
        """The same; None where there is none, or one that another version of the code wrote."""
        try:
            return cls.read(folder)
        except (NotPublishedError, ArtifactError):
            return None

    def write(self, folder: Path) -> Path:
        return write_json(folder / self.FILE, self.model_dump(mode="json"))


class RunCard(Record):
    """What a training was made of and what came out: `run_card.json` of an adapter. Losses in nats a token."""

    FILE: ClassVar[str] = "run_card.json"

    digest: str
    mix_digest: str = ""
    recipe_digest: str = ""
    finished_at: str = ""  # UTC, ISO
    recipe: dict[str, Any] = {}  # as resolved, and as its version of the code had it
    base_model: str = ""
    base_revision: str | None = None
    dtype: str = ""
    plan: dict[str, Any] = {}
    eval_loss_before: float | None = None  # of the base, over the test rows looked at
    eval_loss_after: float | None = None  # of the published weights
    eval_loss_drop: float | None = None  # share
    eval_loss_best: float | None = None
    best_step: int | None = None
    published_step: int | None = None
    train_loss: float | None = None
    gap: float | None = None  # test loss minus train loss
    steps: int | None = None
    planned_steps: int | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    seconds_per_step: float | None = None
    tokens: int | None = None
    tokens_per_s: float | None = None
    peak_memory_gib: float | None = None
    energy_wh: float | None = None
    troubles: list[dict[str, Any]] = []  # {kind, step, why}
    stopped_by: str | None = None
    versions: dict[str, str] = {}
    python: str = ""
    machine: dict[str, Any] = {}
    git_commit: str | None = None
    extras: dict[str, Any] = {}


class Metrics(Record):
    """What an evaluation measured: `metrics.json` of a report. `key` is flat, for Dagster to plot."""

    FILE: ClassVar[str] = "metrics.json"

    digest: str
    verdict: str
    recipe: str = ""
    title: str = ""
    generations: str = ""
    reason: str = ""  # of the verdict, in one sentence
    reason_zh: str = ""
    curve: dict[str, list[tuple[int, float]]] = {}  # train, validation: step and loss in nats a token
    gates: list[dict[str, Any]] = []
    key: dict[str, float | int | None] = {}
    intervals: dict[str, dict[str, Any]] = {}
    detail: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    test: dict[str, Any] = {}
    shared_judge: bool = False
    seeds: dict[str, dict[str, Any]] = {}  # of other trainings: verdict, and value and verdict by gate
    run: RunCard | None = None


class MixManifest(Record):
    """What a mix holds: `manifest.json`. `weights`: a row a persona."""

    FILE: ClassVar[str] = "manifest.json"

    digest: str
    recipe: str = ""
    train_rows: int = 0
    test_rows: int = 0
    train_by_persona: dict[str, int] = {}
    test_by_persona: dict[str, int] = {}
    tagged: dict[str, int] = {}  # rows by split
    by_source: dict[str, int] = {}  # train rows
    by_builder: dict[str, int] = {}  # train rows
    weights: list[dict[str, Any]] = []
    warnings: list[str] = []
    learned: dict[str, float] = {}  # share of the learned characters by persona, of the personas' own
    shortfall: list[str] = []  # what the mix lacks to be trained on, a line a persona
    largest_jaccard: float = 0.0  # between any train row and any test row, prompt and answer
    chars: dict[str, int] = {}  # by split
    files: dict[str, dict[str, Any]] = {}
    config: dict[str, Any] = {}  # the recipe's mix and a digest of the personas

    @property
    def held_back(self) -> list[str]:
        """What the mix lacks, unless its recipe says why that is accepted: nothing is trained on it."""
        return [] if self.config.get("mix", {}).get("accept_shortfall") else self.shortfall


class Job(BaseModel):
    """The input of a program, as a file that a person can read and run again without Dagster."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def save(self, path: Path) -> Path:
        return write_text(path, self.model_dump_json(indent=2))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises `ArtifactError` where the file is no job of this kind."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ArtifactError(f"{path}: no {cls.__name__} ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(step) for step in first['loc']) or 'the whole'}: {first['msg']}"
    return str(error).partition("\n")[0]
