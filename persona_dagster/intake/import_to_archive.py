"""The imports folder → the archive, a file at a time: what is new is stored, and the fate of every row written down.

A file that cannot be read, or a row, costs itself alone: it lies in the quarantine with reason, place and cure, and
is taken again when it was mended. A file that did not change is not read again.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import xxhash
from filelock import FileLock

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import put, write_bytes, write_json, writing
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.digest import file_digest, json_digest, sha256, text_digest
from persona_dagster.intake.already_imported import Found, SeenRows
from persona_dagster.intake.file_formats import Options, Stream, streams
from persona_dagster.intake.items import Item
from persona_dagster.intake.mapping import Mappings
from persona_dagster.intake.open_and_decode import IntakeError, Unit, units, walk
from persona_dagster.intake.schema import SOURCES, Row, RowError
from persona_dagster.pipes_reporting import progress
from persona_dagster.records import Capture, Outcome
from persona_dagster.settings import Settings
from persona_dagster.sites.browser_responses import OF_THE_FILE

READER_VERSION = "1"  # raised when the same bytes would give other rows: every file is then read again
ROW = "row"  # kind of an archived row of the import schema
BATCH, BATCH_BYTES = 4096, 4 << 20  # items looked up together
PART_ROWS = 8192  # rows are small: parts of 200 would be a thousand files a dump
GROUP = 1 << 13  # rows of the ledger written at once
SHOWN = 20  # problems of a file that are kept in its record
KEPT = 20_000  # refused rows of a file that are laid out for mending
UNMENDABLE = frozenset(["no_words", "not_a_post"])  # nothing is wrong with them: they hold no post
STORED, REPEAT, REFUSED, DENIED, FORGOTTEN = "stored", "repeat", "refused", "denied_board", "forgotten"
LEDGER = pl.Schema(
    {
        "file": pl.String,
        "row": pl.Int64,  # from 1
        "part": pl.Int32,  # 0: the record itself; else a comment that lay within it
        "source": pl.String,
        "board": pl.String,
        "snapshot": pl.String,  # the capture that was stored, or the one that this row repeats
        "fate": pl.String,
        "code": pl.String,  # why it was refused, in a word
        "why": pl.String,
        "of_file": pl.String,  # what it repeats
        "of_row": pl.Int64,
        "key": pl.UInt64,
        "content": pl.UInt64,
    }
)
LOST = pl.Schema({"snapshot": pl.String, "fate": pl.String, "kept": pl.String, "lost_why": pl.String})


@dataclass
class Taken:
    """What became of one file."""

    file: str
    rows: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    formats: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    broken: int = 0  # of the problems: what could not be read on; the others are single rows
    unchanged: bool = False
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        return bool(self.problems) and not self.fates[STORED] and not self.fates[REPEAT]


@dataclass
class Intake:
    """What one pass over the imports folder did."""

    files: list[Taken] = field(default_factory=list)

    @property
    def fates(self) -> Counter[str]:
        return sum((taken.fates for taken in self.files), Counter[str]())

    @property
    def problems(self) -> list[str]:
        return [problem for taken in self.files for problem in taken.problems]

    @property
    def broken(self) -> int:
        return sum(taken.broken for taken in self.files)


def take_in(
    settings: Settings,
    archive: Archive,
    *,
    denied: Collection[str] = (),
    options: dict[str, Options] | None = None,
) -> Intake:
    """Reads every file below the imports folder that is new, changed or mended into the archive.

    `options`: what was said of single files, by their name below the folder. Nothing raises for a bad file.
    """
    settings.intake_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.intake_dir / ".lock"):
        return _Pass(settings, archive, {board.casefold() for board in denied}, options or {}).run()


class _Pass:
    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        denied: set[str],
        options: dict[str, Options],
    ) -> None:
        self.settings, self.archive, self.denied, self.options = settings, archive, denied, options
        self.folder = settings.imports_dir
        self.mappings = Mappings(settings.mappings_dir)
        self.forgotten: dict[tuple[str, str], set[str]] = {}

    def run(self) -> Intake:
        done = Intake()
        self._bring_back()
        if not (self.archive.boards("capybara") or any(self.archive.parts(s, IMPORT_BOARD) for s in SOURCES)):
            for ledger in self.settings.intake_dir.glob("*.*"):  # without an archive they tell of rows that are gone
                ledger.unlink()
        problems: list[IntakeError] = []
        files = sorted(walk(self.folder, problems)) if self.folder.is_dir() else []
        for path in files:
            name = path.relative_to(self.folder).as_posix()
            signature = self._signature(path, name)
            known = _record(self.settings.intake_dir, name)
            if known and known["signature"] == signature and name not in self.options:
                done.files.append(_taken(known, unchanged=True))
                continue
            taken = self._file(path, name)
            if taken.failed:
                self._quarantine(path, name, taken)
            write_json(
                _ledger(self.settings.intake_dir, name).with_suffix(".json"),
                {
                    "file": name,
                    "signature": self._signature(path, name),
                    "sha256": file_digest(path) if path.is_file() else None,
                    "rows": taken.rows,
                    "fates": taken.fates,
                    "sources": taken.sources,
                    "formats": taken.formats,
                    "problems": taken.problems[:SHOWN],
                    "broken": taken.broken,
                },
            )
            done.files.append(taken)
        done.files += [Taken(error.name, problems=[str(error)], broken=1) for error in problems]
        return done

    def _signature(self, path: Path, name: str) -> str:
        """What decides how a file is read: its bytes (by size and time), the settled mappings, mended rows."""
        stat = path.stat() if path.exists() else None
        mappings = [(file.name, file.stat().st_mtime_ns) for file in sorted(self.settings.mappings_dir.glob("*.yaml"))]
        rows = self._rows_file(name)
        mended = rows.read_bytes() if rows.is_file() else b""
        return json_digest(
            [READER_VERSION, stat and [stat.st_size, stat.st_mtime_ns], mappings, sha256(mended), sorted(self.denied)]
        )

    def _file(self, path: Path, name: str) -> Taken:
        taken, refused = Taken(name), Refused()
        problems: list[IntakeError] = []
        mended = self._mended(name)
        self.seen = SeenRows(self.settings.intake_dir, own=name)

        with _LedgerWriter(_ledger(self.settings.intake_dir, name)) as ledger:

            def captures() -> Iterator[Capture]:
                for unit in units(path, problems):
                    named = replace(unit, name=name + unit.name.removeprefix(path.name))
                    try:
                        for stream in streams(named, self.options.get(name), self.mappings):
                            taken.formats.append(stream.format)
                            yield from self._stream(stream, named, taken, ledger, refused, mended)
                    except IntakeError as error:
                        problems.append(error)
                    except OSError as error:
                        why = error.strerror or str(error)
                        problems.append(IntakeError(named.name, why, "Allow this user to read it"))

            try:
                self.archive.append(captures(), part_rows=PART_ROWS)
            except IntakeError as error:  # the path itself, or an archive that cannot be opened
                problems.append(error)
            finally:
                self.seen.close()
        taken.problems, taken.broken = [*(str(error) for error in problems), *(refused.lines())], len(problems)
        self._note_rows(name, refused)
        return taken

    def _stream(  # noqa: PLR0917 - the books of one file
        self,
        stream: Stream,
        unit: Unit,
        taken: Taken,
        ledger: _LedgerWriter,
        refused: Refused,
        mended: dict[tuple[str, int], Any],
    ) -> Iterator[Capture]:
        """The captures of a stream that are new; the fates of all its rows go to `ledger`, in batches."""
        renamed: dict[tuple[str, str, str], str] = {}
        batch: list[Item] = []
        held = 0

        def settle() -> list[Capture]:
            fates, fresh = self._fates(stream.name, batch, unit, renamed)
            for fate in fates:
                if fate["part"] == 0:
                    taken.rows += 1
                    taken.fates[fate["fate"]] += 1
                    if fate.get("source"):
                        taken.sources[fate["source"]] += 1
            ledger.write(fates)
            batch.clear()
            progress(f"{taken.file}, rows", taken.rows)
            return fresh

        broken: IntakeError | None = None
        try:
            for read in stream.items():
                record = mended.get((stream.name, read.row)) if read.code else None
                item = read if record is None else _again(read, record, stream)
                if item.code:
                    refused.add(stream.name, item)
                batch.append(item)
                held += item.size
                if len(batch) >= BATCH or held >= BATCH_BYTES:
                    yield from settle()
                    held = 0
        except IntakeError as error:
            broken = error  # what came before the break is taken in
        if batch:
            yield from settle()
        if broken:
            raise broken

    def _fates(
        self, name: str, batch: list[Item], unit: Unit, renamed: dict[tuple[str, str, str], str]
    ) -> tuple[list[dict[str, Any]], list[Capture]]:
        found: list[tuple[Item, int, Row | None, Capture | None]] = []
        for item in batch:
            found += [(item, part, row, None) for part, row in enumerate(item.rows)]
            found += [(item, part, None, capture) for part, capture in enumerate(item.captures)]
            if item.code:
                found.append((item, 0, None, None))
        made = [self._capture(row, capture, unit) for _, _, row, capture in found]
        keys = [_key(capture) if capture else None for capture in made]
        contents = [xxhash.xxh3_64_intdigest(capture.body) if capture else None for capture in made]
        asked = [key for key in keys if key is not None]
        before, stored = self.seen.look_up(asked), self.seen.stored_before(asked)
        fates: list[dict[str, Any]] = []
        fresh: list[Capture] = []
        for place, (item, part, given, _) in enumerate(found):
            row = given
            capture, key, content = made[place], keys[place], contents[place]
            fate: dict[str, Any] = {
                "file": name,
                "row": item.row,
                "part": part,
                "code": item.code or None,
                "why": item.why or None,
            }
            if capture is None or key is None or content is None:
                fates.append(fate | {"fate": REFUSED})
                continue
            fate |= {"source": capture.source, "board": row.board if row else capture.board}
            if row and (row.board or "").casefold() in self.denied:
                fates.append(fate | {"fate": DENIED})
                continue
            if (
                row
                and renamed
                and (parent := renamed.get((row.source, row.board or "", row.fields.get("parent_id") or "")))
            ):
                row = replace(row, fields={**row.fields, "parent_id": parent})
                capture, key, content, last = self._named(row, unit, before)
            else:
                last = before.get(key)
            if capture.key in self._forgotten(capture):
                fates.append(fate | {"fate": FORGOTTEN})
                continue
            if last and last[0] != content and row and row.counted:
                # Another post that was given the same number: it gets a name of its own, and its comments follow it.
                new = f"{row.row_id}~{content:016x}"[: len(row.row_id) + 9]
                renamed[row.source, row.board or "", row.row_id] = new
                capture, key, content, last = self._named(row.renamed(new), unit, before)
            fate |= {"snapshot": capture.sha256, "key": key, "content": content}
            if last and last[0] == content:
                fates.append(fate | {"fate": REPEAT, "of_file": last[1], "of_row": last[2]})
                continue
            before[key] = (content, name, item.row)
            self.seen.add(key, content, name, item.row)
            fates.append(fate | {"fate": STORED})
            if (key, content) not in stored:
                fresh.append(capture)
        return fates, fresh

    def _named(self, row: Row, unit: Unit, before: dict[int, Found]) -> tuple[Capture, int, int, Found | None]:
        """A row under another name: its capture, key and content, and what is known of that key."""
        capture = self._row_capture(row, unit)
        key = _key(capture)
        return (
            capture,
            key,
            xxhash.xxh3_64_intdigest(capture.body),
            before.get(key) or self.seen.look_up([key]).get(key),
        )

    def _capture(self, row: Row | None, capture: Capture | None, unit: Unit) -> Capture | None:
        if row:
            return self._row_capture(row, unit)
        if capture and capture.fetched_at == OF_THE_FILE:
            return replace(capture, fetched_at=unit.modified)
        return capture

    @staticmethod
    def _row_capture(row: Row, unit: Unit) -> Capture:
        body = row.body
        return Capture(
            source=row.source,
            board=IMPORT_BOARD,
            kind=ROW,
            key=row.key,
            url="",
            fetched_at=unit.modified,
            status=200,
            outcome=Outcome.OK,
            headers={},
            body=body,
            sha256=sha256(body),
        )

    def _forgotten(self, capture: Capture) -> set[str]:
        place = (capture.source, capture.board)
        if place not in self.forgotten:
            self.forgotten[place] = self.archive.tombstones(*place)
        return self.forgotten[place]

    # Quarantine

    def _quarantine(self, path: Path, name: str, taken: Taken) -> None:
        """A file of which nothing could be read, with a note; the same file, changed, is taken again."""
        target = self.settings.quarantine_dir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            return  # the user's own file stays where it is; the problem is told all the same
        try:
            put(path, target)
        except OSError:
            shutil.copy2(path, target)
        stat = target.stat()
        write_json(
            target.with_name(f"{target.name}.why.json"),
            {"file": name, "problems": taken.problems, "as_it_was": [stat.st_size, stat.st_mtime_ns]},
        )

    def _bring_back(self) -> None:
        """Files in quarantine that were changed since go back to the imports."""
        for note in sorted(self.settings.quarantine_dir.rglob("*.why.json")):
            told = orjson.loads(note.read_bytes())
            path = note.with_name(note.name.removesuffix(".why.json"))
            if not path.is_file():
                note.unlink()
                continue
            stat = path.stat()
            target = self.folder / told["file"]
            if [stat.st_size, stat.st_mtime_ns] != told["as_it_was"] and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                put(path, target)
                note.unlink()

    def _rows_file(self, name: str) -> Path:
        return self.settings.quarantine_dir / f"{name}.rows.jsonl"

    def _note_rows(self, name: str, refused: Refused) -> None:
        path = self._rows_file(name)
        if refused.kept:
            lines = (orjson.dumps(one, default=str, option=orjson.OPT_NON_STR_KEYS) for one in refused.kept)
            write_bytes(path, b"\n".join(lines) + b"\n")
        else:
            path.unlink(missing_ok=True)

    def _mended(self, name: str) -> dict[tuple[str, int], Any]:
        """Records by (file, row) of the rows that were refused, as they stand in the quarantine now."""
        path = self._rows_file(name)
        found: dict[tuple[str, int], Any] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            try:
                one = orjson.loads(line)
                found[one["file"], one["row"]] = one.get("record")
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue  # half-edited: the row stays refused
        return found


@dataclass
class Refused:
    """Rows that could not be taken in, so many as a person may want to mend."""

    kept: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0

    def add(self, file: str, item: Item) -> None:
        if item.code in UNMENDABLE:
            return
        if len(self.kept) >= KEPT:
            self.more += 1
            return
        self.kept.append({"file": file, "row": item.row, "reason": item.why, "cure": item.cure, "record": item.raw})

    def lines(self) -> list[str]:
        shown = [f"{one['file']}, row {one['row']}: {one['reason']}. {one['cure']}" for one in self.kept[:SHOWN]]
        rest = len(self.kept) + self.more - len(shown)
        return [*shown, f"and {rest} more rows"] if rest else shown


class _LedgerWriter:
    """Fates of rows into one Parquet file, as they come; it takes its place when all are written."""

    def __init__(self, path: Path) -> None:
        self._rows: list[dict[str, Any]] = []
        self._published = writing(path)

    def __enter__(self) -> _LedgerWriter:
        self._file = pq.ParquetWriter(
            self._published.__enter__(), pl.DataFrame(schema=LEDGER).to_arrow().schema, compression="zstd"
        )
        return self

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        if len(self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pl.DataFrame(self._rows, schema=LEDGER).to_arrow().cast(self._file.schema))
            self._rows = []

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._flush()
        self._file.close()
        self._published.__exit__(*error)


def _again(item: Item, record: Any, stream: Stream) -> Item:
    """A refused row by what the user wrote in its place, where that is a row now."""
    if isinstance(record, str):
        try:
            record = orjson.loads(record)
        except orjson.JSONDecodeError:
            return item
    try:
        return Item(item.row, rows=tuple(stream.mapping.rows(record))) if stream.mapping else item
    except RowError:
        return item


def _key(capture: Capture) -> int:
    return xxhash.xxh3_64_intdigest("\0".join((capture.source, capture.board, capture.kind, capture.key)).encode())


def _ledger(folder: Path, name: str) -> Path:
    return folder / f"{text_digest(name)[:16]}.parquet"


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    path = _ledger(folder, name).with_suffix(".json")
    return orjson.loads(path.read_bytes()) if path.is_file() else None


def _taken(record: dict[str, Any], *, unchanged: bool) -> Taken:
    return Taken(
        record["file"],
        record["rows"],
        Counter(record["fates"]),
        record["formats"],
        record["problems"],
        record.get("broken", 0),
        unchanged,
        Counter(record["sources"]),
    )


def places_of(folder: Path) -> dict[str, int]:
    """By the snapshot of a stored row its place among all rows, file after file."""
    stored = read_ledger(folder).filter(pl.col("fate") == STORED).select("file", "row", "part", "snapshot")
    ordered = stored.sort("file", "row", "part").unique("snapshot", keep="first", maintain_order=True)
    return dict(zip(ordered["snapshot"], range(1, len(ordered) + 1), strict=True))


def brought(settings: Settings) -> list[str]:
    """Snapshots of all that the user brought: rows, pages, dialogues and notes."""
    stored = read_ledger(settings.intake_dir).filter(pl.col("fate") == STORED)["snapshot"].to_list()
    notes = walk(settings.notes_dir, []) if settings.notes_dir.is_dir() else ()
    return [*stored, *(sha256(path.read_bytes()) for path in notes)]


def of_profile(frame: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Rows (with `snapshot`) that belong to the profile: in `own` what was imported alone, in `sample` and `tiny` all
    but that, in `live` all."""
    if settings.profile == "live":
        return frame
    mine = pl.col("snapshot").is_in(brought(settings)).fill_null(value=False)
    own_notes = settings.profile != "own" and frame["source"].eq("notes").any()
    return frame if own_notes else frame.filter(mine if settings.profile == "own" else ~mine)


def write_lost(lost: list[tuple[str, str, str | None, str]], path: Path) -> None:
    """What parsing made of stored rows that gave no post of their own."""
    with writing(path) as fresh:
        pl.DataFrame(lost, schema=LOST, orient="row").write_parquet(fresh)


def read_ledger(folder: Path) -> pl.DataFrame:
    """The fate of every row of every imported file (`LEDGER`)."""
    paths = sorted(folder.glob("*.parquet"))
    return pl.concat([pl.DataFrame(schema=LEDGER), *(pl.read_parquet(path) for path in paths)])
