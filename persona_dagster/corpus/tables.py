"""The corpus as Parquet, a file a partition of a table, with DuckDB as the engine that reads and joins it.

There is no database file that holds rows, hence no single writer: boards are written side by side. What any DuckDB
client opens is a catalogue of views over the Parquet, made anew beside the old one and put in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import duckdb
import polars as pl

from persona_dagster import artifacts

SQL = Path(__file__).parent / "sql"
WHOLE = "all"  # the partition of a table without partitions
MEMORY = "1GB"  # of a query that may spill
GROUP = 1 << 16  # rows of a file that are packed at once
LARGE = 50_000  # rows: DuckDB keeps what a query took until its database is closed, here some 300 MB


class SchemaMismatchError(ValueError):
    """Rows whose columns or types are not the table's; the message names table, partition and difference."""


class QueryError(ValueError):
    """A statement that DuckDB refuses; the message is DuckDB's own."""


def sql(name: str) -> str:
    """The statement in `sql/<name>.sql`."""
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _memory() -> duckdb.DuckDBPyConnection:
    """A database without a file. Making one takes 20 ms, a cursor on it 1; frames belong to cursors."""
    return duckdb.connect()


def run_sql(
    name: str, parameters: dict[str, Any] | None = None, *, spill: Path | None = None, **tables: pl.DataFrame | Path
) -> pl.DataFrame:
    """`sql/<name>.sql` over frames and folders of Parquet: Arrow in, Arrow out. `spill`: a folder for what is over
    `MEMORY`; without, everything is in memory."""
    limits: dict[str, Any] = {"memory_limit": MEMORY, "temp_directory": str(spill)} if spill else {}
    alone = spill or sum(len(rows) for rows in tables.values() if isinstance(rows, pl.DataFrame)) > LARGE
    with duckdb.connect(config=limits) if alone else _memory().cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, rows in tables.items():
            if isinstance(rows, Path):
                connection.read_parquet(f"{rows}/*.parquet").create_view(table)
            else:
                connection.register(table, rows.to_arrow())
        return _frame(connection.sql(sql(name), params=parameters or {}))


def _frame(result: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    frame = pl.from_arrow(result.to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _quoted(name: str) -> str:
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(f"{name!r} is no name for a table; use letters, digits and _")
    return f'"{name}"'


def write_parquet(frame: pl.DataFrame, path: Path) -> Path:
    """A frame as zstd Parquet, put in place whole."""
    with artifacts.writing(path) as fresh:
        frame.write_parquet(fresh, compression="zstd", row_group_size=GROUP)
    return path


class Tables:
    """`<folder>/<table>/<partition>.parquet`. A partition that nobody wrote is absent, not an error."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, table: str, partition: str = WHOLE) -> Path:
        _quoted(table)
        return self.folder / table / f"{quote(partition, safe='')}.parquet"

    def partitions(self, table: str) -> list[str]:
        return sorted(unquote(path.stem) for path in self._files(table))

    def write(self, table: str, partition: str, frame: pl.DataFrame, schema: pl.Schema | None = None) -> Path:
        """The frame takes the place of the partition's rows, all or nothing."""
        schema = schema or frame.schema
        _check(table, partition, frame.schema, schema)
        path = write_parquet(frame.select(schema.names()), self.path(table, partition))
        self.catalogue()
        return path

    def read(self, table: str, schema: pl.Schema, partitions: list[str] | None = None) -> pl.DataFrame:
        """The rows of these partitions (all of them, where none are named), in the order of their names.

        Raises `SchemaMismatchError` for a file that another version of the project wrote.
        """
        return self.scan(table, schema, partitions).collect()

    def scan(self, table: str, schema: pl.Schema, partitions: list[str] | None = None) -> pl.LazyFrame:
        """The same, read when it is collected: of a few columns, say."""
        paths = [self.path(table, key) for key in partitions] if partitions is not None else self._files(table)
        frames = [pl.LazyFrame(schema=schema)]
        for path in filter(Path.is_file, paths):
            _check(table, unquote(path.stem), pl.read_parquet_schema(path), schema)
            frames.append(pl.scan_parquet(path, glob=False).select(schema.names()))
        return pl.concat(frames)

    def _files(self, table: str) -> list[Path]:
        return sorted(path for path in (self.folder / table).glob("*.parquet") if not path.name.startswith("."))

    # The catalogue.

    @property
    def catalogue_path(self) -> Path:
        return self.folder / "corpus.duckdb"

    def catalogue(self) -> Path:
        """A DuckDB file with a view a table, up to date: made anew where it is missing, old or locked by somebody.

        It holds no rows, so it is as large for ten million posts as for ten, and old readers keep the file they have.
        """
        views = self._views()
        if _stored_views(self.catalogue_path) != views:
            with artifacts.writing(self.catalogue_path) as fresh, duckdb.connect(str(fresh)) as connection:
                _create(views, connection)
            # What somebody wrote into the old one is no part of the new.
            self.catalogue_path.with_name(f"{self.catalogue_path.name}.wal").unlink(missing_ok=True)
        return self.catalogue_path

    def show(self, connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
        """The same views in a database of the caller's own, which nobody else can hold."""
        _create(self._views(), connection)
        return connection

    def _views(self) -> dict[str, tuple[str, str]]:
        """By table the files of its view and its columns; a new partition of a table is in its view at once."""
        views = {}
        for folder in sorted(path for path in self.folder.glob("*") if path.is_dir()):
            if files := self._files(folder.name):
                columns = ",".join(f"{name}:{kind}" for name, kind in pl.read_parquet_schema(files[-1]).items())
                views[folder.name] = (f"{folder.resolve()}/[!.]*.parquet", columns.replace(" ", ""))
        return views

    def query(self, statement: str, parameters: list[Any] | None = None) -> pl.DataFrame:
        """What any DuckDB client would get from the catalogue. Reads only; raises `QueryError`."""
        with duckdb.connect(str(self.catalogue()), read_only=True) as connection:
            try:
                connection.execute("SET TimeZone = 'UTC'")
                return _frame(connection.sql(statement, params=parameters or []))
            except duckdb.Error as error:
                known = ", ".join(self._views()) or "none yet: materialise `posts` first"
                raise QueryError(f"{error} (tables: {known})") from error


def _create(views: dict[str, tuple[str, str]], connection: duckdb.DuckDBPyConnection) -> None:
    for table, (pattern, columns) in views.items():
        connection.execute(
            f"CREATE VIEW {_quoted(table)} AS SELECT * FROM read_parquet({_literal(pattern)}, union_by_name = true)"
        )
        connection.execute(f"COMMENT ON VIEW {_quoted(table)} IS {_literal(f'{pattern} {columns}')}")


def _stored_views(path: Path) -> dict[str, tuple[str, str]] | None:
    """What the views of a catalogue were made for; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            rows = connection.execute("SELECT view_name, comment FROM duckdb_views() WHERE NOT internal").fetchall()
    except duckdb.Error:  # damaged, or another process has opened it for writing
        return None
    return {name: tuple(str(comment).rsplit(" ", 1)) for name, comment in rows}  # type: ignore[misc]


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _check(table: str, partition: str, given: Mapping[str, pl.DataType], wanted: pl.Schema) -> None:
    if dict(given) != dict(wanted):
        differences = sorted(
            f"{name}: {wanted.get(name, 'absent')} wanted, {given.get(name, 'absent')} found"
            for name in given.keys() | wanted.keys()
            if given.get(name) != wanted.get(name)
        )
        raise SchemaMismatchError(
            f"table {table!r}, partition {partition!r}: {'; '.join(differences)}. Materialise that partition again"
        )
