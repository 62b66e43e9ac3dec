"""A board cleaned from its captures, of which those that were cleaned before are not parsed and cleaned again.

Captures are cut into stretches of neighbours; what parsing and cleaning made of a stretch is kept in a file named by
the hash of its captures and of everything that decides the outcome. A new day changes the stretches at the end of a
board. The rest is read, and what only all rows tell (twins, threads, floods) is looked at anew. Only a cache: without
it, and after any change of rules, parsers or labels, everything is cleaned.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import polars as pl
import xxhash

from persona_dagster.archive.archive import LISTS, Archive
from persona_dagster.archive.history import Sighting
from persona_dagster.artifacts import writing
from persona_dagster.config.sources import IMPORT_BOARD, Sources
from persona_dagster.corpus.canonical_names import labels_version
from persona_dagster.corpus.clean import Cleaned, Cleaning, Simplified
from persona_dagster.corpus.funnel import Funnel
from persona_dagster.corpus.parsing import (
    PARSER_VERSION,
    Lost,
    each_once,
    in_order,
    linked,
    parse_captures,
    subjects,
)
from persona_dagster.corpus.rules import rules_version
from persona_dagster.digest import framed, sha256, text_digest
from persona_dagster.pipes_reporting import progress
from persona_dagster.records import Source, posts_frame
from persona_dagster.sites.parser_results import AuthorKey
from persona_dagster.worker_processes import worker_processes

# Captures of a stretch, on average: an article brings some forty rows, a capture of an imported file is one.
PAGES, ROWS = 64, 2048
SIDE_BY_SIDE = 6  # stretches to clean, from which on processes of their own are worth their start
WAITING = 6  # stretches for each process, parsed; more would only be held in memory
MOST_PROCESSES = 4  # of some 250 MB each, and several boards may be cleaned at once


def cleaning_version(personas: Mapping[str, Any], name_model: str | None = None) -> str:
    """Code, rules, the spellings of personas' labels, what finds names: what a row of a board comes out by."""
    found_by = [name_model] if name_model else []
    return text_digest(rules_version(), PARSER_VERSION, labels_version(personas), *found_by)


@dataclass
class Tally:
    """What happened to a board's captures and rows on the way."""

    funnel: Funnel = field(default_factory=Funnel)
    problems: list[str] = field(default_factory=list)  # "key: why"
    lost: list[Lost] = field(default_factory=list)
    fresh: int = 0  # captures that were parsed and cleaned this time
    kept: int = 0  # captures whose rows were read from the cache

    def add(self, other: Tally) -> None:
        self.funnel.add(other.funnel)
        self.problems += other.problems
        self.lost += other.lost
        self.fresh += other.fresh
        self.kept += other.kept


@dataclass(frozen=True)
class BoardCleaner:
    """Cleans the boards of one source. `author_key`: of an author's name. `folder`: of what is kept."""

    source: Source
    archive: Archive
    sources: Sources
    personas: Mapping[str, Any]
    author_key: AuthorKey
    folder: Path
    simplified: Simplified = "convert"
    name_model: str | None = None

    def clean(
        self,
        boards: list[str],
        places: Mapping[str, int] | None = None,
        keep: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows,
    ) -> tuple[Cleaned, Tally]:
        """The boards as one frame (`records.POST_SCHEMA`), as `parse_board` and `clean_posts` make it of everything.

        `places`: see `in_order`. `keep`: which rows may stay, asked once all are there.
        """
        tally = Tally()
        return self._cleaning.board(keep(self._linked(boards, places, tally)), tally.funnel), tally

    # What a step no longer needs has no name here: a name would hold a copy of all rows for the length of the next.

    def _linked(self, boards: list[str], places: Mapping[str, int] | None, tally: Tally) -> pl.DataFrame:
        rows, lost = each_once(self._all(boards, tally))
        tally.lost += lost
        rows = in_order(rows, places)
        return linked(rows)

    def _all(self, boards: list[str], tally: Tally) -> pl.DataFrame:
        parts = [rows for board in boards for rows in self._stretches(board, tally)]
        return pl.concat(parts) if parts else self._cleaning.rows(posts_frame([]).with_columns(subjects([]))).frame

    @property
    def _cleaning(self) -> Cleaning:
        return Cleaning(self.source, self.sources, self.personas, self.simplified, self.name_model)

    def _stretches(self, board: str, tally: Tally) -> Iterator[pl.DataFrame]:
        """The rows of each stretch of a board's captures. Files of stretches that are no more are deleted."""
        folder = self.folder / self.source / quote(board, safe="")
        version = self._version(board)
        seen = [one for one in self.archive.newest_sightings(self.source, board) if one.kind not in LISTS]
        cut = stretches(seen, imported=board == IMPORT_BOARD)
        paths = {folder / f"{_name(version, stretch)}.parquet": stretch for stretch in cut}
        fresh = {path: stretch for path, stretch in paths.items() if not path.exists()}
        if len(fresh) >= SIDE_BY_SIDE and _cores() > 1:
            with suppress(BrokenProcessPool):  # killed for memory, say: what is not there then is cleaned below
                self._clean_side_by_side(board, fresh)
        for path, stretch in paths.items():
            rows, of_stretch = _read(path) or self._cleaned(board, stretch, path)
            if path in fresh:
                of_stretch = replace(of_stretch, fresh=len(stretch), kept=0)
            tally.add(of_stretch)
            progress(f"{self.source}/{board}: captures cleaned", tally.fresh + tally.kept, len(seen))
            yield rows
        for path in set(folder.glob("*.parquet")) - set(paths):
            path.unlink(missing_ok=True)

    def _clean_side_by_side(self, board: str, fresh: Mapping[Path, list[Sighting]]) -> None:
        """Writes the files of these stretches. All are given to processes beside this one, which takes some back and
        cleans them itself: what a stretch costs, by the length of its texts, is not known before."""
        beside = min(MOST_PROCESSES, _cores()) - 1
        begun: deque[tuple[Path, Tally, pl.DataFrame, Future[Cleaned]]] = deque()
        with worker_processes(beside) as pool:
            for number, (path, stretch) in enumerate(fresh.items(), 1):
                frame, tally = self._parsed(board, stretch)
                begun.append((path, tally, frame, pool.submit(self._cleaning.rows, frame)))
                if len(begun) > WAITING * beside:
                    self._settle(*begun.pop())
                while begun and begun[0][-1].done():
                    self._settle(*begun.popleft())
                progress(f"{self.source}/{board}: stretches cleaned", number - len(begun), len(fresh))
            while begun:
                self._settle(*begun.pop())

    def _settle(self, path: Path, tally: Tally, frame: pl.DataFrame, rows: Future[Cleaned]) -> None:
        _kept(path, tally, self._cleaning.rows(frame) if rows.cancel() else rows.result())

    def _cleaned(self, board: str, stretch: list[Sighting], path: Path) -> tuple[pl.DataFrame, Tally]:
        frame, tally = self._parsed(board, stretch)
        return _kept(path, tally, self._cleaning.rows(frame))

    def _parsed(self, board: str, stretch: list[Sighting]) -> tuple[pl.DataFrame, Tally]:
        """In the order of the stretch, and with what links articles."""
        parsed = parse_captures(self.archive.captures(self.source, board, stretch), self.author_key)
        tally = Tally(problems=parsed.problems, lost=parsed.lost, fresh=len(stretch))
        return in_order(posts_frame(parsed.posts).with_columns(subjects(parsed.posts))), tally

    def _version(self, board: str) -> str:
        """Of all that decides what a stretch becomes, besides its captures. A pseudonym stands for the secret."""
        given = (self.simplified, *sorted(self.sources.denied_boards), pl.__version__)
        return text_digest(cleaning_version(self.personas, self.name_model), _parsers(), self.author_key(board), *given)


@cache
def _parsers() -> str:
    """Hash of the code that reads captures. A number raised by hand (`PARSER_VERSION`) may be forgotten."""
    package = Path(__file__).parents[1]
    paths = [*package.glob("sites/**/*.py"), *package.glob("intake/*.py"), package / "corpus" / "parsing.py"]
    return text_digest(*(sha256(path.read_bytes()) for path in sorted(paths)))


def stretches(seen: list[Sighting], *, imported: bool) -> Iterator[list[Sighting]]:
    """Captures in order of their keys, which grow with time on every site (imports: as they came), cut where the hash
    of a key says so: a capture that comes or goes moves no other cut."""
    size = ROWS if imported else PAGES
    stretch: list[Sighting] = []
    for one in sorted(seen, key=lambda one: (one.fetched_at, one.part, one.row) if imported else (one.key, one.kind)):
        stretch.append(one)
        if xxhash.xxh3_64_intdigest(one.key.encode()) % size == 0:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _name(version: str, stretch: list[Sighting]) -> str:
    state = xxhash.xxh3_128(version.encode())
    for one in stretch:
        state.update(framed(f"{one.kind}\0{one.key}\0{one.sha256}\0{one.fetched_at.isoformat()}\0{one.outcome}"))
    return state.hexdigest()


def _cores() -> int:
    return os.cpu_count() or 1


def _kept(path: Path, tally: Tally, cleaned: Cleaned) -> tuple[pl.DataFrame, Tally]:
    tally.funnel.add(cleaned.funnel)
    about = {"funnel": tally.funnel.dump(), "problems": tally.problems, "lost": tally.lost, "captures": tally.fresh}
    with writing(path) as fresh:
        cleaned.frame.write_parquet(fresh, compression="lz4", metadata={"tally": orjson.dumps(about).decode()})
    return cleaned.frame, tally


def _read(path: Path) -> tuple[pl.DataFrame, Tally] | None:
    """What is kept; None where there is nothing that can be read."""
    with suppress(FileNotFoundError, pl.exceptions.PolarsError, KeyError, ValueError):
        about = orjson.loads(pl.read_parquet_metadata(path)["tally"])
        lost = [(snapshot, why, other, outcome) for snapshot, why, other, outcome in about["lost"]]
        tally = Tally(Funnel.load(about["funnel"]), about["problems"], lost, kept=about["captures"])
        return pl.read_parquet(path), tally
    return None
