"""SQLite files beside the parts: opened with their tables, made again where they are damaged or of another version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

BUSY_SECONDS = 60


def open_database(path: Path | None, tables: str, version: int) -> sqlite3.Connection:
    """The database at `path` (None: in memory) with its `tables`, made where they are missing or of another version.

    Raises `sqlite3.DatabaseError` for a file that is no sound database, `sqlite3.OperationalError` where it is locked.
    """
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    # What is forgotten must not stay in free pages.
    db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;")
    if _version(db) == version:
        return db
    db.execute("BEGIN IMMEDIATE")
    if _version(db) != version:  # else another process was faster
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            db.execute(f"DROP TABLE {name}")
        for statement in filter(str.strip, tables.split(";")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {version}")
    db.execute("COMMIT")
    return db


def _version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def remove_database(path: Path | None) -> None:
    if path:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
