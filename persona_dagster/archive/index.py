"""Where each capture of a board stands: a SQLite file beside the parts, so that one thing is looked up without reading
the rest, and a pass over two million captures starts in milliseconds.

Only a cache. It is made from the parts, brought up to date before each use, and made again where it is missing,
damaged or of another version; deleting it costs one reading of the parts' small columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from persona_dagster.archive.database import open_database, remove_database
from persona_dagster.archive.history import GONE_TWICE, History, Sighting
from persona_dagster.records import Outcome

NAME = ".index.sqlite"
VERSION = 2  # raised when the tables change: the file is then made again
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TABLES = """
CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE seen (
    part INTEGER NOT NULL, row INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL,
    url TEXT NOT NULL, status INTEGER NOT NULL, outcome TEXT NOT NULL, sha256 BLOB NOT NULL, stored INTEGER NOT NULL,
    PRIMARY KEY (part, row)
) WITHOUT ROWID;
CREATE INDEX seen_thing ON seen (kind, key, at);
CREATE INDEX seen_key ON seen (key);
CREATE INDEX seen_body ON seen (sha256, stored);
CREATE TABLE named (name TEXT NOT NULL, part INTEGER NOT NULL, row INTEGER NOT NULL);
CREATE INDEX named_name ON named (name);
CREATE INDEX named_part ON named (part, row);
"""
SIGHTING = "kind, key, url, at, status, outcome, sha256, stored, part.name, row"
Row = tuple[Any, ...]


class IndexDamagedError(RuntimeError):
    """The file was no sound database; it has been removed, and the next look makes it again from the parts."""


class BoardIndex:
    """The index of one board; `path` None keeps it in memory (an archive on an object store)."""

    def __init__(self, path: Path | None):
        self.path = path
        try:
            self._db = open_database(path, TABLES, VERSION)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
            self.path = None  # an archive that may only be read
            self._db = open_database(None, TABLES, VERSION)
        except sqlite3.DatabaseError:
            remove_database(path)
            self._db = open_database(path, TABLES, VERSION)

    def close(self) -> None:
        self._db.close()

    def _run(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(sql, tuple(values))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            remove_database(self.path)
            raise IndexDamagedError(f"{self.path}: {error}; it was removed, run this again") from error

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._run("COMMIT")

    # Keeping up with the parts

    def parts(self) -> dict[str, tuple[int, int]]:
        """Rows and decoded bytes of each part that the index knows."""
        return {name: (rows, size) for name, rows, size in self._run("SELECT name, rows, bytes FROM part")}

    def sync(self, listed: Callable[[], Iterable[str]], read: Callable[[str], list[dict[str, Any]] | None]) -> None:
        """Take in the parts that are new, and let go of those that are not there any more.

        `read` gives a part's rows without bodies, None when it has gone meanwhile.
        """
        if set(listed()) == self.parts().keys():
            return
        with self._changing():
            # Listed again within the transaction: a part that a writer has entered is then surely listed.
            there, known = set(listed()), self.parts().keys()
            for name in known - there:
                self._drop(name)
            for name in sorted(there - known):
                if (rows := read(name)) is not None:
                    self._add(name, rows)

    def add(self, name: str, rows: list[dict[str, Any]]) -> None:
        with self._changing():
            self._drop(name)
            self._add(name, rows)

    def replace(self, old: Iterable[str], new: Iterable[tuple[str, list[dict[str, Any]]]]) -> None:
        """Parts written in place of others, in one step."""
        with self._changing():
            for name in old:
                self._drop(name)
            for name, rows in new:
                self._drop(name)
                self._add(name, rows)

    def truncate_log(self) -> None:
        """Lets go of the pages that SQLite keeps of what was deleted."""
        self._run("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _add(self, name: str, rows: list[dict[str, Any]]) -> None:
        size = sum(row["size"] for row in rows)
        number = self._run("INSERT INTO part (name, rows, bytes) VALUES (?, ?, ?)", (name, len(rows), size)).lastrowid
        self._db.executemany(
            "INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    number, n, row["kind"], row["key"], _micros(row["fetched_at"]), row["url"], row["status"],
                    row["outcome"], bytes.fromhex(row["sha256"]), row["stored"],
                )
                for n, row in enumerate(rows)
            ),
        )  # fmt: skip
        names = [(name, number, n) for n, row in enumerate(rows) for name in row["names"] or ()]
        self._db.executemany("INSERT INTO named VALUES (?, ?, ?)", names)

    def _drop(self, name: str) -> None:
        found = self._run("SELECT id FROM part WHERE name = ?", (name,)).fetchone()
        if found:
            for table in ("seen", "named"):
                self._run(f"DELETE FROM {table} WHERE part = ?", found)
            self._run("DELETE FROM part WHERE id = ?", found)

    # Looking up

    def history(self, kind: str, key: str) -> History | None:
        sql = f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part WHERE kind = ? AND key = ? ORDER BY at"
        return _history([_sighting(row) for row in self._run(sql, (kind, key))])

    def histories(self) -> Iterator[tuple[str, str, History]]:
        """Every (kind, key) with all its sightings, in order of the names."""
        sql = f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part ORDER BY kind, key, at"
        sightings: list[Sighting] = []
        for row in self._run(sql):
            if sightings and (sightings[0].kind, sightings[0].key) != row[:2]:
                yield sightings[0].kind, sightings[0].key, _settled(sightings)
                sightings = []
            sightings.append(_sighting(row))
        if sightings:
            yield sightings[0].kind, sightings[0].key, _settled(sightings)

    def meanings(self) -> Iterator[tuple[str, str, str]]:
        """Each (kind, key) that was ever whole, in order of the names, with the hash of its newest whole capture, or
        `gone`. As `History` has it, without making one: at two million captures that is most of a pass's end."""
        rows = self._run("SELECT kind, key, at, outcome, sha256 FROM seen ORDER BY kind, key, at")
        for (kind, key), group in groupby(rows, itemgetter(0, 1)):
            looks = list(dict.fromkeys(row[2:] for row in group))
            whole = next((sha256 for _, outcome, sha256 in reversed(looks) if outcome == Outcome.OK), None)
            if whole is not None:
                gone = [outcome for _, outcome, _ in looks[-GONE_TWICE:]] == [Outcome.GONE] * GONE_TWICE
                yield kind, key, "gone" if gone else whole.hex()

    def keys(self, kind: str) -> Iterator[str]:
        for (key,) in self._run("SELECT DISTINCT key FROM seen WHERE kind = ?", (kind,)):
            yield key

    def has_sighting(self, kind: str, key: str, at: datetime, sha256: str, outcome: str) -> bool:
        sql = "SELECT 1 FROM seen WHERE kind = ? AND key = ? AND at = ? AND sha256 = ? AND outcome = ?"
        return self._run(sql, (kind, key, _micros(at), bytes.fromhex(sha256), outcome)).fetchone() is not None

    def holds(self, sha256: str) -> bool:
        """Whether a part holds the bytes of that hash."""
        return (
            self._run("SELECT 1 FROM seen WHERE sha256 = ? AND stored", (bytes.fromhex(sha256),)).fetchone() is not None
        )

    def holder(self, sha256: str) -> tuple[str, int] | None:
        """The part and the row that hold the bytes of that hash."""
        sql = "SELECT part.name, row FROM seen JOIN part ON part.id = seen.part WHERE sha256 = ? AND stored LIMIT 1"
        return self._run(sql, (bytes.fromhex(sha256),)).fetchone()

    def with_body(self, sha256: str) -> list[Sighting]:
        sql = f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part WHERE sha256 = ? ORDER BY at"
        return [_sighting(row) for row in self._run(sql, (bytes.fromhex(sha256),))]

    def with_key(self, key: str) -> list[Sighting]:
        sql = f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part WHERE key = ?"
        return [_sighting(row) for row in self._run(sql, (key,))]

    def naming(self, name: str) -> list[Sighting]:
        """Lists that name a post."""
        sql = (
            f"SELECT {SIGHTING} FROM named JOIN seen USING (part, row) JOIN part ON part.id = seen.part "
            "WHERE named.name = ?"
        )
        return [_sighting(row) for row in self._run(sql, (name,))]

    def names(self) -> Iterator[str]:
        """Every post that a list ever named."""
        for (name,) in self._run("SELECT DISTINCT name FROM named"):
            yield name

    def unnamed(self, kind: str) -> list[Sighting]:
        """Captures of a kind that name nothing."""
        sql = (
            f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part WHERE kind = ? "
            "AND NOT EXISTS (SELECT 1 FROM named WHERE named.part = seen.part AND named.row = seen.row)"
        )
        return [_sighting(row) for row in self._run(sql, (kind,))]

    def every(self) -> Iterator[Sighting]:
        """Every row, oldest first."""
        for row in self._run(f"SELECT {SIGHTING} FROM seen JOIN part ON part.id = seen.part ORDER BY at, kind, key"):
            yield _sighting(row)

    def homeless(self) -> Iterator[tuple[str, str, str]]:
        """Kind, key and hash of rows whose bytes no part holds: the archive is damaged."""
        yield from (
            (kind, key, sha256.hex())
            for kind, key, sha256 in self._run(
                "SELECT DISTINCT kind, key, sha256 FROM seen WHERE NOT stored AND NOT EXISTS "
                "(SELECT 1 FROM seen AS held WHERE held.sha256 = seen.sha256 AND held.stored)"
            )
        )


def _micros(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND


def _sighting(row: Row) -> Sighting:
    kind, key, url, at, status, outcome, sha256, stored, part, number = row
    when = EPOCH + timedelta(microseconds=at)
    return Sighting(kind, key, url, when, status, outcome, sha256.hex(), bool(stored), part, number)


def _history(sightings: list[Sighting]) -> History | None:
    return _settled(sightings) if sightings else None


def _settled(sightings: list[Sighting]) -> History:
    history = History(sightings)
    if len(sightings) > 1:
        history.settle()
    return history
