"""Content hashes: what counts as a change, and the names that follow from content.

A digest is over meaning: fields that change without changing any choice downstream (when a page was
fetched, which snapshot it came from) stay out. Every hash is stable over machines, versions and runs.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import xxhash

POST_MEANING = (
    "source",
    "board",
    "kind",
    "post_id",
    "parent_id",
    "thread_id",
    "author_key",
    "created_at",
    "title",
    "text_raw",
    "text",
    "quoted",
    "score",
    "tag",
    "floor",
    "lang",
    "flags",
    "dup_of",
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def json_digest(value: Any) -> str:
    """32 hex digits over a JSON-like value, independent of key order."""
    return xxhash.xxh3_128_hexdigest(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))


def text_digest(*parts: str) -> str:
    """32 hex digits over the parts and the borders between them."""
    # `framed` in place: a call a part would be half the time of a million.
    data = [len(part).to_bytes(8, "little") + part for part in map(str.encode, parts)]
    return xxhash.xxh3_128_hexdigest(b"".join(data))


def framed(part: str) -> bytes:
    """A part as `text_digest` takes it in: its length in bytes, then its bytes."""
    data = part.encode()
    return len(data).to_bytes(8, "little") + data


def combine(digests: Iterable[str]) -> str:
    """One digest over many, independent of their order: for sets of rows."""
    return text_digest(*sorted(digests))


def frame_digest(frame: pl.DataFrame, columns: Iterable[str]) -> str:
    """32 hex digits over the named columns, independent of row order. A million posts take 2 s."""
    spelt = pl.concat_str(_spelt(name, frame.schema[name]) for name in columns)
    rows = (row for part in frame.iter_slices(1 << 17) for row in part.select(spelt).to_series())
    digests = np.frombuffer(b"".join(xxhash.xxh3_128_digest(row.encode()) for row in rows), ">u8").reshape(-1, 2)
    return xxhash.xxh3_128_hexdigest(digests[np.lexsort((digests[:, 1], digests[:, 0]))].tobytes())


def _spelt(name: str, kind: pl.DataType) -> pl.Expr:
    """A column as text that tells its values apart, also beside others: each after its length, null as `-`."""
    column = pl.col(name)
    if kind == pl.List(pl.String):
        column = column.list.eval(_after_length(pl.element())).list.join("")
    elif isinstance(kind, pl.Datetime):
        column = column.dt.epoch("us").cast(pl.String)
    elif kind.is_integer():
        column = column.cast(pl.String)
    elif kind != pl.String:
        column = column.map_elements(
            lambda value: orjson.dumps(
                value.to_list() if isinstance(value, pl.Series) else value, default=str
            ).decode(),
            return_dtype=pl.String,
        )
    return _after_length(column)


def _json(value: Any) -> str:
    return orjson.dumps(value.to_list() if isinstance(value, pl.Series) else value, default=str).decode()


def _after_length(column: pl.Expr) -> pl.Expr:
    return pl.when(column.is_null()).then(pl.lit("-")).otherwise(pl.format("{}:{}", column.str.len_bytes(), column))


def file_digest(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keyed_hash(key: str, *parts: str) -> int:
    """A 64-bit number that orders rows without any RNG state: the same on every machine, nested by size."""
    return xxhash.xxh3_128_intdigest(b"".join(map(framed, (key, *parts)))) >> 64


def keyed_hashes(key: str, names: Iterable[str]) -> npt.NDArray[np.uint64]:
    """`keyed_hash(key, name)` of every name: a million in 0.4 s."""
    head, hashed = framed(key), xxhash.xxh3_128_digest  # big-endian: the leading half is the number
    digests = [hashed(head + len(name).to_bytes(8, "little") + name) for name in map(str.encode, names)]
    return np.frombuffer(b"".join(digests), dtype=">u8")[::2].astype(np.uint64)


def author_key(secret: bytes, source: str, author: str) -> str:
    """The pseudonym of an author: HMAC-SHA256 over site and id, 24 hex digits."""
    return hmac.new(secret, f"{source}|{author}".encode(), hashlib.sha256).hexdigest()[:24]
