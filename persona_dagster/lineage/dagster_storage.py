"""Dagster's own storage, rewritten as records: SQLite files under its home, or the Postgres that dagster.yaml names.

Text is taken out of values, never out of what Dagster steers by: keys, ids, class names, types, times and data
versions stay, and so does that a run was, when, and how it ended.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml

from persona_dagster.lineage.byte_search import covered, holding, occurring, unzipped

FORGOTTEN_MARK = "[forgotten]"
PATIENCE_S = 30  # for a writer that holds a SQLite file
UNSWEPT = "persona_unswept"  # stands in a Postgres from when rows were rewritten until the dead ones are gone from disk
# Of a serialised record: what names, orders or versions it. Everything else may hold somebody's words.
STEERING = frozenset(
    """
    __class__ __enum__ __mapped_items__ run_id step_key event_type_value asset_key path pid timestamp partition
    job_name pipeline_name location_name repository_name code_location_name data_version input_storage_ids
    """.split()  # noqa: SIM905
)
STEERED = ("dagster/", ".dagster/")  # labels and tags of Dagster's own


ESCAPED = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|([\"/]))")


class StoreBusyError(ValueError):
    """Another program writes to a store; the message says which."""


def without_phrases(value: str, needles: Collection[bytes]) -> str:
    """The text with every run of needles replaced by `FORGOTTEN_MARK`."""
    data = value.encode("utf-8", "surrogateescape")
    parts, done = [], 0
    for start, end in covered(data, occurring(data, needles)):
        # A backslash before it would hang in JSON.
        parts += [data[done:start].rstrip(b"\\") if value[:1] in '{["' else data[done:start], FORGOTTEN_MARK.encode()]
        done = end
    return b"".join([*parts, data[done:]]).decode("utf-8", "surrogateescape") if parts else value


def rewritten(value: str | bytes, needles: Collection[bytes]) -> str | bytes:
    """A stored value without needles, as the text, blob or packed blob that it was."""
    if isinstance(value, bytes):
        unpacked = unzipped(value)
        plain = (unpacked if unpacked is not None else value).decode("utf-8", "surrogateescape")
        fresh = str(rewritten(plain, needles)).encode("utf-8", "surrogateescape")
        return zlib.compress(fresh) if unpacked is not None else fresh
    # Few of thousands: looked for in the record as it stands and with its escapes undone, however deep.
    plain = ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], value)
    needles = occurring(f"{value}\n{plain}".encode("utf-8", "replace"), needles)
    if not needles:
        return value
    try:
        record = json.loads(value)
    except ValueError:
        return without_phrases(value, needles)
    if not isinstance(record, dict | list):
        return without_phrases(value, needles)
    return json.dumps(_without(record, needles))


def _without(value: Any, needles: Collection[bytes]) -> Any:
    if isinstance(value, dict):
        own = str(value.get("label") or value.get("key") or "")
        if own.startswith(STEERED):
            return value
        return {
            key: item if key in STEERING or str(key).startswith(STEERED) else _without(item, needles)
            for key, item in ((without_phrases(str(key), needles), item) for key, item in value.items())
        }
    if isinstance(value, list):
        return [_without(item, needles) for item in value]
    if isinstance(value, str):
        inner = rewritten(value, needles) if value[:1] in ("{", "[") else without_phrases(value, needles)
        return inner if isinstance(inner, str) else value
    return value


def forget_sqlite(path: Path, needles: Collection[bytes]) -> int:
    """Rewrites a SQLite file's values, then the file without its free pages. Returns the values changed.

    Raises:
        StoreBusyError: another program holds the file; nothing of it was touched.
    """
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": PATIENCE_S})

    @sa.event.listens_for(engine, "connect")
    def undecoded(connection: Any, _: Any) -> None:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.isolation_level = None
        connection.execute("PRAGMA secure_delete = ON")

    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            changed = _forget_in(connection, needles)
            connection.exec_driver_sql("COMMIT")
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                connection.exec_driver_sql(statement)
    except sa.exc.OperationalError as error:
        raise StoreBusyError(f"{path}: {error.orig}; stop Dagster and forget again") from error
    finally:
        engine.dispose()
    return changed


def forget_postgres(url: str, needles: Collection[bytes]) -> int:
    """The same for the tables of a Postgres; those that changed are written anew, so that no dead row keeps a word.

    Raises:
        StoreBusyError: the server is not there, or another program holds a table.
    """
    engine = sa.create_engine(url, isolation_level="READ COMMITTED")
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET lock_timeout = '{PATIENCE_S}s'")
            changed = _forget_in(connection, needles)
            if changed:
                connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS {UNSWEPT} (why text)")
        if sa.inspect(engine).has_table(UNSWEPT):  # also one that was killed before it swept
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM FULL")
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {UNSWEPT}")
    except sa.exc.OperationalError as error:
        raise StoreBusyError(f"Dagster's Postgres: {error.orig}; forget again when it answers") from error
    finally:
        engine.dispose()
    return changed


def postgres_holds(url: str, needles: Collection[bytes]) -> bool:
    """Whether any value of the database holds a needle."""
    engine = sa.create_engine(url)
    with closing(engine.connect()) as connection:
        held = bool(holding(((0, _plain(value)) for _, _, value, _ in _values(connection)), needles))
    engine.dispose()
    return held


def postgres_url(dagster_home: Path) -> str | None:
    """Where dagster.yaml says that the storage is, if that is a Postgres."""
    path = dagster_home / "dagster.yaml"
    stated = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    postgres = ((stated or {}).get("storage") or {}).get("postgres")
    if not postgres:
        return None
    if url := _given(postgres.get("postgres_url")):
        return url.replace("postgres://", "postgresql://", 1)
    database = postgres.get("postgres_db") or {}
    return sa.URL.create(
        "postgresql",
        _given(database.get("username")),
        _given(database.get("password")),
        _given(database.get("hostname")),
        database=_given(database.get("db_name")),
        port=int(_given(database.get("port")) or 5432),
    ).render_as_string(hide_password=False)


def _given(value: Any) -> str | None:
    """A setting of dagster.yaml: itself, or the environment variable that it names."""
    return os.environ.get(value["env"]) if isinstance(value, dict) else None if value is None else str(value)


def _forget_in(connection: sa.Connection, needles: Collection[bytes]) -> int:
    names = ((number, _plain(value)) for number, (_, _, value, _) in enumerate(_values(connection)))
    hit = holding(names, needles)
    found = [place for number, place in enumerate(_values(connection)) if number in hit] if hit else []
    changed = 0
    for table, column, value, key in found:
        fresh = rewritten(value, needles)
        if fresh == value:
            continue
        where = sa.and_(*(table.c[name] == part for name, part in key.items()))
        try:
            with connection.begin_nested() if connection.dialect.name != "sqlite" else nullcontext():
                connection.execute(sa.update(table).where(where).values({column: fresh}))
        except sa.exc.IntegrityError:  # two tags or keys that are the same now
            connection.execute(sa.delete(table).where(where))
        changed += 1
    return changed


def _values(connection: sa.Connection) -> Iterator[tuple[sa.Table, str, str | bytes, dict[str, Any]]]:
    """Every text and blob of every table, with what its row is found by."""
    metadata = sa.MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        names = [column.name for column in table.primary_key] or [column.name for column in table.columns]
        rowid = connection.dialect.name == "sqlite" and not table.primary_key
        if rowid:
            table = sa.table(table.name, sa.column("rowid"), *(sa.column(c.name) for c in table.columns))  # type: ignore[assignment]  # noqa: PLW2901
            names = ["rowid"]
        for row in connection.execute(sa.select(table)).mappings():
            for column, value in row.items():
                plain = bytes(value) if isinstance(value, memoryview) else value
                if isinstance(plain, str | bytes):
                    yield table, str(column), plain, {name: row[name] for name in names}


def _plain(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return unzipped(value) or value
