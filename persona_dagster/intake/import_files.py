"""`persona import`: looks at what lies at a path, shows what it was taken for, and lays it where the graph reads it.

Tables, dumps, chats and pages go to the imports folder, notes to the notes folder; a mapping that was guessed is
written down, so that the next file of that kind needs no guess.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import yaml

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import write_text, writing
from persona_dagster.intake.file_formats import Options, Stream, streams
from persona_dagster.intake.import_to_archive import Intake, take_in
from persona_dagster.intake.items import Item
from persona_dagster.intake.mapping import Mappings
from persona_dagster.intake.notes import SUFFIXES as NOTE_SUFFIXES
from persona_dagster.intake.open_and_decode import IntakeError, Unit, plain, units
from persona_dagster.settings import Settings

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PREVIEW = 3  # rows
CONSENTS = "consents.yaml"


@dataclass
class StreamLook:
    """One stream of a file as it would be read, with its first items."""

    file: Path
    stream: Stream
    first: list[Item]


@dataclass
class Look:
    """What a path holds."""

    path: Path
    streams: list[StreamLook] = field(default_factory=list)
    problems: list[IntakeError] = field(default_factory=list)

    @property
    def chats(self) -> list[StreamLook]:
        return [seen for seen in self.streams if seen.stream.format.endswith("chat")]


def look_at(path: Path, options: Options, mappings: Mappings) -> Look:
    """Every stream below a path, read as far as its first rows. Nothing is written."""
    look = Look(path)
    try:
        for unit in units(path, look.problems):
            try:
                for stream in streams(unit, options, mappings):
                    first = list(islice((item for item in stream.items() if not item.code), PREVIEW))
                    look.streams.append(StreamLook(_file_of(path, unit), stream, first))
            except IntakeError as error:
                look.problems.append(error)
    except IntakeError as error:
        look.problems.append(error)
    return look


def _file_of(path: Path, unit: Unit) -> Path:
    return path / unit.name.partition("!")[0] if path.is_dir() else path


def lay_out(look: Look, settings: Settings, options: Options) -> tuple[dict[str, Options], list[Path]]:
    """Copies what was seen to the imports and notes folders, and writes the guessed mappings down.

    Returns the options of single files, by their name in the imports folder, and the notes that were laid out.
    """
    by_file: dict[Path, list[StreamLook]] = {}
    for seen in look.streams:
        by_file.setdefault(seen.file, []).append(seen)
    said, notes = dict[str, Options](), list[Path]()
    mappings = Mappings(settings.mappings_dir)
    for file, found in by_file.items():
        holds = {seen.stream.holds for seen in found}
        name = file.relative_to(look.path.parent).as_posix()
        if holds & {"rows", "pages", "dialogues"}:
            _copy(file, settings.imports_dir / name)
            said[name] = options
        if "notes" in holds:
            notes += _lay_notes(file, name, found, settings.notes_dir)
        for seen in found:
            mapping = seen.stream.mapping
            if mapping and not mapping.identity and not seen.stream.settled:
                path = mappings.path(mapping, seen.stream.name)
                write_text(path, mappings.text(mapping, seen.stream.name))
    return said, notes


def _lay_notes(file: Path, name: str, found: list[StreamLook], folder: Path) -> list[Path]:
    """Notes unpacked, those within a ZIP each by itself."""
    wanted = {seen.stream.name.partition("!")[2] for seen in found if seen.stream.holds == "notes"}
    laid: list[Path] = []
    for unit in units(file, []):
        member = unit.name.partition("!")[2]
        if member in wanted and unit.suffix in NOTE_SUFFIXES:
            place = f"{name}/{member}" if member else name
            with plain(unit) as path:
                laid.append(_copy(path, folder / place.removesuffix(unit.packed)))
    return laid


def bring(
    looks: list[Look], settings: Settings, archive: Archive, options: Options, denied: Collection[str]
) -> tuple[Intake, list[Path]]:
    """Lays out what was looked at and takes it in; the notes among it are laid out, and named."""
    told, notes = dict[str, Options](), list[Path]()
    for look in looks:
        files, laid = lay_out(look, settings, options)
        told |= files if options != Options() else {}
        notes += laid
    return take_in(settings, archive, denied=denied, options=told), notes


def _copy(file: Path, target: Path) -> Path:
    if file.resolve() != target.resolve():
        with writing(target) as fresh:
            shutil.copy2(file, fresh)
    return target


def from_hub(name: str, settings: Settings) -> Path:
    """A data set of the Hugging Face Hub (or a folder in its layout) as Parquet files, one a split, in the cache.

    Raises `IntakeError` where it cannot be had.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise IntakeError(name, "the Hub is reached with an extra", "pip install 'persona-dagster[train]'") from error
    try:
        splits = load_dataset(name)
    except Exception as error:  # datasets lets through whatever its builders and the network raise
        why = re.sub(r"\s+", " ", str(error))[:160]
        raise IntakeError(
            name, f"cannot be had from the Hub ({why})", "Check the name, the network, and `hf auth login`"
        ) from error
    folder = settings.home / "cache" / "hub" / name.replace("/", "__")
    for split, rows in splits.items():
        with writing(folder / f"{split}.parquet") as fresh:
            rows.to_parquet(fresh)
    return folder


class Consents:
    """Who exported a chat said once that its people agree; that is written down with chat, file and day."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.config_dir / CONSENTS

    def read(self) -> dict[str, dict[str, str]]:
        return (yaml.safe_load(self.path.read_text(encoding="utf-8")) or {}) if self.path.is_file() else {}

    def missing(self, look: Look) -> list[str]:
        """Boards of chats for which nothing is recorded yet."""
        known = self.read()
        return [board for seen in look.chats if (board := _board(seen)) and board not in known]

    def record(self, look: Look) -> None:
        known = self.read()
        for seen in look.chats:
            if board := _board(seen):
                day = f"{datetime.now(UTC):%Y-%m-%d}"
                known.setdefault(board, {"file": seen.file.name, "said": day, "who": "the user who imported it"})
        head = "# Chats whose people agreed that their words are learned from, as the user said when importing them.\n"
        write_text(self.path, head + yaml.safe_dump(known, allow_unicode=True, sort_keys=True))


def _board(seen: StreamLook) -> str | None:
    return seen.first[0].rows[0].board if seen.first and seen.first[0].rows else None
