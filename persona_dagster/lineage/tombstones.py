"""What must never come back: the ids of forgotten posts and the keys of forgotten authors, and no word of theirs.

One log under PERSONA_HOME/tombstones, only ever appended to, each line with the hash of the one before: a line that was
lost or changed shows. A restore leaves it where it is and adds the backup's lines; whatever cleans or restores asks
here first.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import polars as pl
from filelock import FileLock

from persona_dagster.digest import sha256, text_digest

FOLDER, LOG = "tombstones", "log.jsonl"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`docs`: doc_ids; `pages`: those of them below which everything goes (None, before 0.2: all). `authors`: keyed
    hashes. `keys`: "source/board/key" of raw captures. `at`: UTC, ISO."""

    at: str
    docs: list[str] = field(default_factory=list)
    authors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    pages: list[str] | None = None

    @property
    def name(self) -> str:
        return text_digest("docs", *self.docs, "authors", *self.authors)[:16]


def write(home: Path, *stones: Tombstone) -> None:
    """Appends to the log what it does not hold yet; on disk when this returns."""
    folder = home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        lines, whole = _lines(home)
        known = {_identity(stone) for stone in read(home)}
        before = orjson.loads(lines[-1])["hash"] if lines else ""
        fresh = b""
        for stone in stones:
            if _identity(stone) in known:
                continue
            line = _line(before, stone)
            before, fresh = orjson.loads(line)["hash"], fresh + line + b"\n"
        with (folder / LOG).open("r+b" if (folder / LOG).exists() else "wb") as file:
            file.seek(whole)
            file.truncate()  # a line that a power cut left half written
            file.write(fresh)
            file.flush()
            os.fsync(file.fileno())


def _identity(stone: Tombstone) -> tuple[str, tuple[str, ...]]:
    return stone.name, tuple(stone.keys)


def _line(before: str, stone: Tombstone) -> bytes:
    body = {"before": before, "stone": asdict(stone)}
    return orjson.dumps(body | {"hash": sha256(orjson.dumps(body))})


def _lines(home: Path) -> tuple[list[bytes], int]:
    """The whole lines of the log, and where they end."""
    path = home / FOLDER / LOG
    data = path.read_bytes() if path.is_file() else b""
    whole = data.rfind(b"\n") + 1
    return data[:whole].splitlines(), whole


def read(home: Path) -> list[Tombstone]:
    """Every tombstone, those of before 0.2 (a file each) first."""
    old = [orjson.loads(path.read_bytes()) for path in sorted((home / FOLDER).glob("*.json"))]
    return [Tombstone(**stone) for stone in [*old, *(orjson.loads(line)["stone"] for line in _lines(home)[0])]]


def faults(home: Path) -> list[str]:
    """Where the chain of the log breaks; empty when all is well."""
    before, found = "", []
    for number, line in enumerate(_lines(home)[0], start=1):
        try:
            said = orjson.loads(line)
            if said["before"] != before or line != _line(before, Tombstone(**said["stone"])):
                found.append(f"{home / FOLDER / LOG}, line {number}: not as it was written")
            before = said["hash"]
        except (ValueError, KeyError, TypeError):
            found.append(f"{home / FOLDER / LOG}, line {number}: no tombstone")
    return found


def without_forgotten(posts: pl.DataFrame, home: Path) -> pl.DataFrame:
    """`posts` (POST_SCHEMA) without what was forgotten: by id or author, and what hangs below a forgotten post."""
    stones = read(home)
    if not stones:
        return posts
    docs = sorted({doc for stone in stones for doc in stone.docs})
    pages = sorted({doc for stone in stones for doc in (stone.docs if stone.pages is None else stone.pages)})
    authors = sorted({author for stone in stones for author in stone.authors})
    own, above = (pl.concat_str("source", "board", column, separator=":") for column in ("post_id", "parent_id"))
    gone = own.is_in(docs) | above.is_in(pages) | pl.col("author_key").is_in(authors)
    return posts.filter(~gone.fill_null(value=False))
