"""Takes text out of SQLite files (Dagster's runs, events and ticks) so that no page, free page or log keeps it.

Values are blotted, not dropped: Dagster still knows that the run was, when, and how it ended.
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from persona_dagster.lineage.search import holding, occurring, unzipped

BLOT = b"[forgotten]"
PATIENCE_S = 30  # for a writer that holds the file

Place = tuple[str, str, int]  # table, column, rowid


def blot(value: bytes, needles: set[bytes]) -> bytes:
    """`value` with every run of needles replaced by `BLOT`, and the backslashes before it, which would hang in JSON."""
    present = sorted(occurring(value, needles), key=len, reverse=True)
    if not present:
        return value
    # Within a lookahead, so that needles which overlap are all seen.
    spans: list[list[int]] = []
    for match in re.finditer(rb"(?=(" + b"|".join(map(re.escape, present)) + rb"))", value):
        start, end = match.span(1)
        if spans and start <= spans[-1][1]:
            spans[-1][1] = max(end, spans[-1][1])
        else:
            spans.append([start, end])
    parts, done = [], 0
    for start, end in spans:
        parts += [value[done:start].rstrip(b"\\"), BLOT]
        done = end
    return b"".join([*parts, value[done:]])


def blot_database(path: Path, needles: set[bytes]) -> int:
    """Blots the needles out of all tables, then rewrites the file without its free pages. Returns the values changed.

    Raises:
        sqlite3.OperationalError: another program holds the file; stop it and repeat.
    """
    with closing(sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)) as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        hit = holding(((place, _unpacked(value)) for place, value in _values(connection)), needles)
        for table, column, rowid in sorted(hit):
            (value,) = connection.execute(f'SELECT "{column}" FROM "{table}" WHERE rowid = ?', (rowid,)).fetchone()
            update = f'UPDATE OR REPLACE "{table}" SET "{column}" = ? WHERE rowid = ?'
            connection.execute(update, (_blotted(value, needles), rowid))
        connection.execute("COMMIT")
        for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            connection.execute(statement).fetchall()
    return len(hit)


def _values(connection: sqlite3.Connection) -> Iterator[tuple[Place, str | bytes]]:
    """Every text and blob of every table."""
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in connection.execute(tables).fetchall():
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")').fetchall()]
        selected = ", ".join(f'"{column}"' for column in columns)
        for rowid, *values in connection.execute(f'SELECT rowid, {selected} FROM "{table}"'):
            for column, value in zip(columns, values, strict=True):
                if isinstance(value, str | bytes):
                    yield (table, column, rowid), value


def _unpacked(value: str | bytes) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return unzipped(value) or value


def _blotted(value: str | bytes, needles: set[bytes]) -> str | bytes:
    """The value without needles, as the text, blob or packed blob that it was."""
    fresh = blot(_unpacked(value), needles)
    if isinstance(value, str):
        return fresh.decode("utf-8", "surrogateescape")
    return zlib.compress(fresh) if unzipped(value) is not None else fresh
