"""What must never come back: the ids of forgotten posts and the keys of forgotten authors, and no word of theirs.

One small JSON file a forgetting under PERSONA_HOME/tombstones; whatever cleans or restores asks here first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
import polars as pl

from persona_dagster.artifacts import write_json
from persona_dagster.digest import text_digest

FOLDER = "tombstones"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """`docs`: doc_ids. `authors`: keyed hashes. `keys`: "source/board/key" of raw captures. `at`: UTC, ISO."""

    at: str
    docs: list[str] = field(default_factory=list)
    authors: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return text_digest("docs", *self.docs, "authors", *self.authors)[:16]


def write(stone: Tombstone, home: Path) -> Path:
    """Puts the tombstone on disk before anything is removed, so that a forgetting cut short can be repeated."""
    return write_json(home / FOLDER / f"{stone.name}.json", asdict(stone))


def read(home: Path) -> list[Tombstone]:
    return [Tombstone(**orjson.loads(path.read_bytes())) for path in sorted((home / FOLDER).glob("*.json"))]


def without_forgotten(posts: pl.DataFrame, home: Path) -> pl.DataFrame:
    """`posts` (POST_SCHEMA) without what was forgotten: by id or author, and what hangs below a forgotten post."""
    stones = read(home)
    if not stones:
        return posts
    docs = sorted({doc for stone in stones for doc in stone.docs})
    authors = sorted({author for stone in stones for author in stone.authors})
    own, above = (pl.concat_str("source", "board", column, separator=":") for column in ("post_id", "parent_id"))
    gone = own.is_in(docs) | above.is_in(docs) | pl.col("author_key").is_in(authors)
    return posts.filter(~gone.fill_null(value=False))
