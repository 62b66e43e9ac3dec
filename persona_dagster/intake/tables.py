"""Records of tables and dumps: JSON lines and arrays, CSV, Parquet, Excel, SQLite, Hugging Face folders, streamed.

A reader yields (row, record) with the row's number as a person counts it, from 1, or an `IntakeError` in place of a
record that cannot be read. DuckDB, PyArrow, fastexcel and sqlite3 read; nothing of a format is known here.
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import orjson

from persona_dagster.intake.open_and_decode import IntakeError, Unit, lines_of, plain

Record = tuple[int, Any]
BATCH = 1 << 13  # rows of one batch of a columnar file
MAX_RECORD = 64 << 20  # bytes of one element of a JSON array
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


@dataclass(frozen=True)
class Table:
    """A stream of records under a name: a file, a sheet of a workbook, a table of a database."""

    name: str
    format: str
    read: Callable[[], Iterator[Record]]
    encoding: str | None = None
    delimiter: str | None = None


def json_lines(unit: Unit, encoding: str | None = None) -> Iterator[Record]:
    for number, line in lines_of(unit, encoding):
        if isinstance(line, IntakeError):
            yield number, line
            continue
        if not line or line.isspace():
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, _odd_json(unit, number, line, error)


def _odd_json(unit: Unit, number: int, line: str, error: orjson.JSONDecodeError) -> Any:
    """Lone surrogates, which Python's writers emit and orjson refuses, are read all the same."""
    import json

    if "\\ud" in line or "\\uD" in line:
        try:
            return json.loads(line)
        except ValueError:
            pass
    return IntakeError(unit.name, f"is no JSON ({error})", "Write one whole JSON object a line", number)


def json_array(unit: Unit, encoding: str | None = None) -> Iterator[Record]:
    """The elements of a JSON array, streamed by DuckDB; of an object, those of its one long list."""
    import duckdb

    with _utf8(unit, encoding) as path:
        connection = duckdb.connect()
        try:
            found = connection.execute(
                "SELECT json FROM read_json_objects(?, format = 'auto', maximum_object_size = ?)",
                [str(path), MAX_RECORD],
            )
            number = 0
            while batch := found.fetchmany(BATCH):
                for (text,) in batch:
                    number += 1
                    yield number, orjson.loads(text)
        except (duckdb.Error, orjson.JSONDecodeError) as error:
            why = str(error).split("\n")[0].replace(str(path), unit.name)
            raise IntakeError(unit.name, f"is no whole JSON ({why})", "Export it again, or mend it there") from error
        finally:
            connection.close()


def json_object(unit: Unit, value: dict[str, Any]) -> Iterator[Record]:
    """An object that holds its rows in a list (`{"articles": [...]}`), or in columns of equal length."""
    lists = {name: inner for name, inner in value.items() if isinstance(inner, list) and inner}
    objects: list[list[Any]] = [inner for inner in lists.values() if isinstance(inner[0], dict)]
    if objects:
        sizes = [len(inner) for inner in objects]
        yield from enumerate(objects[sizes.index(max(sizes))], 1)
        return
    columns = {name: list(inner.values()) if isinstance(inner, dict) else inner for name, inner in value.items()}
    lengths = {len(inner) for inner in columns.values() if isinstance(inner, list)}
    if len(columns) > 1 and len(lengths) == 1 and all(isinstance(inner, list) for inner in columns.values()):
        for number, row in enumerate(zip(*columns.values(), strict=True), 1):
            yield number, dict(zip(columns, row, strict=True))
        return
    yield 1, value


def _utf8(unit: Unit, encoding: str | None):
    """The unit as a plain UTF-8 file."""
    from contextlib import contextmanager
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from persona_dagster.intake.open_and_decode import encoding_of, head_of

    @contextmanager
    def opened() -> Iterator[Path]:
        codec = encoding or encoding_of(head_of(unit))
        if codec == "utf-8":
            with plain(unit) as path:
                yield path
            return
        with TemporaryDirectory(prefix="persona-utf8-") as folder:
            target = Path(folder) / "data.json"
            with target.open("w", encoding="utf-8") as out:
                for _, line in lines_of(unit, codec):
                    if isinstance(line, IntakeError):
                        raise line
                    out.write(line + "\n")
            yield target

    return opened()


def delimited(unit: Unit, encoding: str | None = None, delimiter: str | None = None) -> Iterator[Record]:
    """CSV and its kin. A record's row is the line on which it begins; a header that comes again is passed over."""
    cut: list[tuple[int, IntakeError]] = []

    def texts() -> Iterator[str]:
        for number, line in lines_of(unit, encoding):
            if isinstance(line, IntakeError):
                cut.append((number, line))
                yield ""
            else:
                yield line.replace("\0", "") + "\n"

    csv.field_size_limit(1 << 24)
    delimiter = delimiter or delimiter_of(unit, encoding)
    reader = csv.reader(texts(), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield (
                first,
                IntakeError(
                    unit.name, f"no {DELIMITERS.get(delimiter, '')}-separated row ({error})", "Mend its quotes", first
                ),
            )
            continue
        yield from ((number, error) for number, error in cut)
        if cut:
            cut.clear()
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = _header(cells)
            continue
        if _header(cells) == header:
            continue
        if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
            yield (
                first,
                IntakeError(
                    unit.name,
                    f"{len(cells)} cells where the header names {len(header)}",
                    "Quote the cells that hold the delimiter or line breaks",
                    first,
                ),
            )
            continue
        yield first, {name: cell for name, cell in zip(header, cells, strict=False) if cell != ""}
    yield from cut


def _header(cells: list[str]) -> list[str]:
    """Names of columns, each once."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = cell.strip().lstrip("\ufeff") or f"column_{number}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


def delimiter_of(unit: Unit, encoding: str | None = None) -> str:
    """The sign that parts the first lines into the most columns, alike on each."""
    lines = [line for _, line in islice(lines_of(unit, encoding), 30) if isinstance(line, str) and line]
    if not lines:
        return ","
    by_sign = {sign: next(csv.reader(lines[:1], delimiter=sign)) for sign in DELIMITERS}
    return max(by_sign, key=lambda sign: len(by_sign[sign]))


def parquet(unit: Unit) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with plain(unit) as path:
        try:
            file = pq.ParquetFile(path)
            yield from _numbered(file.iter_batches(BATCH))
        except (pa.ArrowException, OSError) as error:
            raise IntakeError(
                unit.name, f"is no whole Parquet file ({_first(error)})", "Write or fetch it again"
            ) from error


def _numbered(batches: Iterable[Any]) -> Iterator[Record]:
    """The rows of Arrow's batches, without what is null."""
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, row in enumerate(rows, start=1):
        yield number, {name: value for name, value in row.items() if value is not None}


def arrow(unit: Unit) -> Iterator[Record]:
    """An Arrow stream or file, as `datasets` saves them."""
    import pyarrow as pa

    with plain(unit) as path:
        try:
            with pa.memory_map(str(path)) as source:
                try:
                    reader: Any = pa.ipc.open_stream(source)
                except pa.ArrowInvalid:
                    file = pa.ipc.open_file(source)
                    reader = (file.get_batch(n) for n in range(file.num_record_batches))
                yield from _numbered(reader)
        except (pa.ArrowException, OSError) as error:
            raise IntakeError(
                unit.name, f"is no whole Arrow file ({_first(error)})", "Save the data set again"
            ) from error


def sheets(unit: Unit) -> Iterator[Table]:
    """The sheets of a workbook that hold anything."""
    import fastexcel

    with plain(unit) as path:
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" and unit.suffix not in (".xls",):
                raise IntakeError(unit.name, "is protected by a password", "Save it in Excel without one")
        try:
            book = fastexcel.read_excel(path)
            names = book.sheet_names
        except Exception as error:  # fastexcel's errors share no base that it exports
            raise IntakeError(
                unit.name, f"is no workbook that can be read ({_first(error)})", "Save it as .xlsx or .csv"
            ) from error
        for name in names:
            frame = book.load_sheet(name, header_row=None, dtypes="string").to_polars()
            if frame.height > 1:
                yield Table(f"{unit.name}!{name}", "Excel", partial(_sheet_rows, frame))


def _sheet_rows(frame: Any) -> Iterator[Record]:
    """Rows below the first one that is full enough to be a header; titles above it are passed over."""
    header: list[str] | None = None
    for number, cells in enumerate(frame.iter_rows(), 1):
        filled = [cell for cell in cells if cell not in (None, "")]
        if not filled:
            continue
        if header is None:
            if len(filled) * 2 > len(cells) or len(cells) == 1:
                header = _header([str(cell or "") for cell in cells])
            continue
        if _header([str(cell or "") for cell in cells]) == header:
            continue
        yield number, {name: cell for name, cell in zip(header, cells, strict=True) if cell not in (None, "")}


def databases(unit: Unit) -> Iterator[Table]:
    """The tables of an SQLite file, opened so that nothing is written beside it."""
    with plain(unit) as path:
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        except sqlite3.Error as error:
            raise IntakeError(unit.name, f"is no SQLite database ({error})", "Check the file") from error
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            names = [
                name
                for (name,) in connection.execute(
                    "SELECT name FROM sqlite_master "
                    "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name"
                )
            ]
            for name in names:
                yield Table(f"{unit.name}!{name}", "SQLite", partial(_table_rows, connection, unit, name))
        except sqlite3.DatabaseError as error:
            cure = "Export it without encryption" if "not a database" in str(error) else "Run sqlite3's .recover on it"
            raise IntakeError(unit.name, f"is no SQLite database that can be read ({error})", cure) from error
        finally:
            connection.close()


def _table_rows(connection: sqlite3.Connection, unit: Unit, name: str) -> Iterator[Record]:
    quoted = name.replace('"', '""')
    try:
        found = connection.execute(f'SELECT * FROM "{quoted}"')
        columns = [column[0] for column in found.description]
        for number, cells in enumerate(found, 1):
            yield (
                number,
                {c: v for c, v in zip(columns, cells, strict=True) if v is not None and not isinstance(v, bytes)},
            )
    except sqlite3.DatabaseError as error:
        raise IntakeError(
            f"{unit.name}!{name}", f"cannot be read to its end ({error})", "Run sqlite3's .recover on it"
        ) from error


def _first(error: BaseException) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:160]
