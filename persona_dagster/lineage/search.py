"""Where given bytes still stand under a folder: in plain files, and decoded out of Parquet, DuckDB, gzip, zstd, zip
and tar. What forgetting is held to: it searches every store, Dagster's own and backups included.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import duckdb
import orjson
import polars as pl
import zstandard


def spellings(text: str) -> set[bytes]:
    """The ways in which a text is written into files: plain, HTML, and JSON with and without ASCII escapes."""
    plain = text.encode()
    as_json = orjson.dumps(text)[1:-1]
    escaped = text.encode("unicode_escape")
    return {plain, escape(text).encode(), as_json, escaped, escaped.replace(b"\\x", b"\\u00")}


def find(folder: Path, needles: Iterable[bytes], skip: Iterable[Path] = ()) -> list[Path]:
    """The files below `folder` that hold one of the needles, once decoded."""
    wanted, left_out = list(needles), set(skip)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not left_out & {path, *path.parents} and holds(path, wanted)
    )


def holds(path: Path, needles: list[bytes]) -> bool:
    return any(needle in data for data in _decoded(path.name, path.read_bytes(), path) for needle in needles)


def _decoded(name: str, data: bytes, path: Path | None = None) -> Iterator[bytes]:
    """The bytes as they stand, and what they hold when unpacked."""
    yield data
    if data[:4] == b"PAR1":
        yield from _columns(pl.read_parquet(io.BytesIO(data)))
    elif data[8:12] == b"DUCK" and path is not None:
        yield from _tables(path)
    elif data[:2] == b"\x1f\x8b":
        yield from _archive(name.removesuffix(".gz"), gzip.decompress(data))
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield from _archive(name.removesuffix(".zst"), zstandard.ZstdDecompressor().stream_reader(data).read())
    elif name.endswith((".tar", ".zip")):
        yield from _archive(name, data)


def _archive(name: str, data: bytes) -> Iterator[bytes]:
    if name.endswith((".tar", ".tgz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                if (file := tar.extractfile(member)) is not None:
                    yield from _decoded(member.name, file.read())
    elif name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in packed.namelist():
                yield from _decoded(inner, packed.read(inner))
    else:
        yield from _decoded(name, data)


def _columns(frame: pl.DataFrame) -> Iterator[bytes]:
    for column in frame.iter_columns():
        if column.dtype == pl.Binary:
            yield b"\n".join(value for value in column if value is not None)
        elif column.dtype == pl.String:
            yield "\n".join(value for value in column if value is not None).encode()
        elif column.dtype.is_nested():
            yield orjson.dumps(column.to_list(), default=str)


def _tables(path: Path) -> Iterator[bytes]:
    connection = duckdb.connect(str(path), read_only=True)
    try:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            frame = pl.from_arrow(connection.sql(f'FROM "{table}"').to_arrow_table())
            assert isinstance(frame, pl.DataFrame)
            yield from _columns(frame)
    finally:
        connection.close()
