"""The corpus in DuckDB: one transaction a partition, columns by name, schemas checked, connections always closed.

A DuckDB file has one writer, and blocks readers meanwhile: write under one lock, and let everybody downstream
read the exported Parquet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import duckdb
import polars as pl

SQL = Path(__file__).parent / "sql"
PARTITION = "partition_key"


class Connect(Protocol):
    """How to open the file: `duckdb.connect`, or the factory of a Dagster resource."""

    def __call__(self, path: str, /, read_only: bool = False) -> duckdb.DuckDBPyConnection: ...


class SchemaMismatchError(ValueError):
    """A frame whose columns or types are not the table's."""


class UnknownTableError(LookupError):
    """A table that nobody has written yet."""


def sql(name: str) -> str:
    """The statement in `sql/<name>.sql`."""
    return (SQL / f"{name}.sql").read_text(encoding="utf-8")


@cache
def _memory() -> duckdb.DuckDBPyConnection:
    """A database without a file. Making one takes 20 ms, a cursor on it 1; frames belong to cursors."""
    return duckdb.connect()


def run_sql(name: str, parameters: dict[str, Any] | None = None, **frames: pl.DataFrame) -> pl.DataFrame:
    """`sql/<name>.sql` over frames, in memory: Arrow in, Arrow out, no file."""
    with _memory().cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, frame in frames.items():
            connection.register(table, frame.to_arrow())
        return _frame(connection.sql(sql(name), params=parameters or {}))


def _frame(result: duckdb.DuckDBPyRelation) -> pl.DataFrame:
    frame = pl.from_arrow(result.to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def _quoted(name: str) -> str:
    if not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(f"{name!r} is no name for a table; use letters, digits and _")
    return f'"{name}"'


class Warehouse:
    """Tables of partitions in one DuckDB file. Opens for one call at a time, and closes whatever happens."""

    def __init__(self, path: str | Path, connect: Connect = duckdb.connect) -> None:
        self.path = Path(path)
        self._connect = connect

    @contextmanager
    def _open(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect(str(self.path), read_only=read_only)
        try:
            # Times are stored with a zone; what a reader's machine is set to must not change them.
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._open() as connection:
            connection.execute("BEGIN TRANSACTION")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _prepare(self, connection: duckdb.DuckDBPyConnection, table: str, partition: str, frame: pl.DataFrame) -> None:
        """Register the frame as `incoming`; make the table, or check that the frame fits it."""
        if PARTITION in frame.columns:
            raise SchemaMismatchError(f"{table}: the frame has a column {PARTITION!r}, which is the warehouse's own")
        connection.register("incoming", frame.with_columns(pl.lit(partition).alias(PARTITION)).to_arrow())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_quoted(table)} AS FROM incoming LIMIT 0")
        stored = dict(
            connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {_quoted(table)})").fetchall()
        )
        given = dict(connection.execute("SELECT column_name, column_type FROM (DESCRIBE incoming)").fetchall())
        if stored != given:
            differences = sorted(
                f"{name}: {stored.get(name, 'absent')} stored, {given.get(name, 'absent')} given"
                for name in stored.keys() | given.keys()
                if stored.get(name) != given.get(name)
            )
            raise SchemaMismatchError(
                f"table {table!r}, partition {partition!r}: {'; '.join(differences)}. "
                f"Rename or drop the table in {self.path.name}, then materialise its partitions again"
            )

    def replace(self, table: str, partition: str, frame: pl.DataFrame) -> int:
        """The frame takes the place of the partition's rows, all or nothing. Returns its number of rows."""
        with self._transaction() as connection:
            self._prepare(connection, table, partition, frame)
            connection.execute(f"DELETE FROM {_quoted(table)} WHERE {PARTITION} = ?", [partition])
            connection.execute(f"INSERT INTO {_quoted(table)} BY NAME FROM incoming")
        return len(frame)

    def merge(self, table: str, partition: str, frame: pl.DataFrame, key: tuple[str, ...]) -> dict[str, int]:
        """The same outcome by MERGE on `key`, touching only rows that differ: counts by `INSERT|UPDATE|DELETE`."""
        columns = [name for name in frame.columns if name not in key]
        with self._transaction() as connection:
            self._prepare(connection, table, partition, frame)
            statement = sql("merge_partition").format(
                table=_quoted(table),
                partition=PARTITION,
                on=" AND ".join(f"stored.{_quoted(name)} = incoming.{_quoted(name)}" for name in key),
                differs=" OR ".join(f"stored.{_quoted(n)} IS DISTINCT FROM incoming.{_quoted(n)}" for n in columns)
                or "false",
                update=", ".join(f"{_quoted(name)} = incoming.{_quoted(name)}" for name in columns),
            )
            actions = connection.execute(statement, {"partition": partition}).fetchall()
        counts = {"INSERT": 0, "UPDATE": 0, "DELETE": 0}
        for row in actions:
            counts[row[0]] += 1
        return counts

    def read(self, table: str, partition: str | None = None) -> pl.DataFrame:
        """A table, or one partition of it, without the partition's key."""
        where, parameters = ("", []) if partition is None else (f"WHERE {PARTITION} = ?", [partition])
        with self._open(read_only=True) as connection:
            self._require(connection, table)
            query = f"SELECT * EXCLUDE ({PARTITION}) FROM {_quoted(table)} {where}"
            return _frame(connection.sql(query, params=parameters))

    def partitions(self, table: str) -> dict[str, int]:
        """Rows by partition; empty when the file or the table is not there yet."""
        if not self.path.exists():
            return {}
        with self._open(read_only=True) as connection:
            if not self._exists(connection, table):
                return {}
            query = f"SELECT {PARTITION}, count(*) FROM {_quoted(table)} GROUP BY ALL ORDER BY ALL"
            return dict(connection.execute(query).fetchall())

    def query(self, name: str, **parameters: Any) -> pl.DataFrame:
        """The statement `sql/<name>.sql` over the stored tables, with bound parameters."""
        with self._open(read_only=True) as connection:
            return _frame(connection.sql(sql(name), params=parameters))

    def drop_partition(self, table: str, partition: str) -> None:
        """Forget a partition: for boards that left sources.yaml."""
        with self._transaction() as connection:
            self._require(connection, table)
            connection.execute(f"DELETE FROM {_quoted(table)} WHERE {PARTITION} = ?", [partition])

    def export(self, table: str, path: str | Path, partition: str | None = None) -> Path:
        """A table or partition as one Parquet file, put in place whole: what downstream reads."""
        return write_parquet(self.read(table, partition), Path(path))

    @staticmethod
    def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
        # fetchall, not fetchone: DuckDB 2 refuses further work on a connection with an unfinished result
        return bool(connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]).fetchall())

    def _require(self, connection: duckdb.DuckDBPyConnection, table: str) -> None:
        if not self._exists(connection, table):
            raise UnknownTableError(f"{self.path.name} has no table {table!r}; materialise the asset that writes it")


def write_parquet(frame: pl.DataFrame, path: Path) -> Path:
    """A frame as zstd Parquet: temp, fsync, rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        frame.write_parquet(temporary, compression="zstd")
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
