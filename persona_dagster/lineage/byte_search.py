"""Where given bytes still stand under a folder: in plain files, and decoded out of Parquet, DuckDB, SQLite, gzip, zstd,
zip, tar, HAR, MHTML and mail, in UTF-8, UTF-16, Big5 and GB 18030. What forgetting is held to: it searches every store,
Dagster's own and backups included.

One automaton looks for all needles at once (Aho-Corasick, polars'), in batches of about 64 MB.
"""

from __future__ import annotations

import base64
import email
import gzip
import io
import json
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from html import escape
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import duckdb
import orjson
import polars as pl
import zstandard

BATCH = 64 << 20  # bytes
BLOCK, OVERLAP = 16 << 20, 64 << 10  # bytes; no needle is longer than the overlap
WEIGHTS = {".safetensors", ".gguf", ".bin", ".pt"}  # as they stand, never packed
# An excerpt of 15 characters holds a whole window; shorter ones hardly say whose they are.
WINDOW, STRIDE = 12, 4
ENCODINGS = ("utf-16-le", "utf-16-be", "big5", "cp950", "gb18030")  # of files that people bring

NUMBERED = ("&#{};", "&#x{:x};", "&#x{:X};")
MAIL, WRAPPING = {".mht", ".mhtml", ".eml"}, {".har", ".ipynb", ".json", ".html", ".svg", ".xml"}
BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]|\\n){16,}={0,2}")

Name = TypeVar("Name")


def windows(line: str) -> list[str]:
    """Pieces of `line` of `WINDOW` characters, so that an excerpt of it is found as well; none of a shorter line."""
    last = len(line) - WINDOW
    return [line[at : at + WINDOW] for at in sorted({*range(0, last + 1, STRIDE), last})] if last >= 0 else []


def spellings(text: str) -> set[bytes]:
    """The ways in which a text is written into files: plain, HTML and its numbered characters, URL, Python's bytes, and
    JSON with and without ASCII escapes, within another JSON string too."""
    as_json, ascii_json = orjson.dumps(text)[1:-1], json.dumps(text)[1:-1].encode()
    return {
        text.encode(),
        escape(text).encode(),
        escape(text, quote=False).encode(),
        *("".join(form.format(ord(c)) if c > "\x7f" else c for c in text).encode() for form in NUMBERED),
        quote(text).encode(),
        quote(text).lower().encode(),
        repr(text.encode())[2:-1].encode(),
        text.encode("unicode_escape"),
        *(spelled for json_text in (as_json, ascii_json) for spelled in (json_text, json_text.replace(b"\\", b"\\\\"))),
        *(encoded for encoding in ENCODINGS if (encoded := _encoded(text, encoding))),
    }


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        return b""  # a character that the encoding has not


def find(folder: Path, needles: Iterable[bytes], skip: Iterable[Path] = ()) -> list[Path]:
    """The files below `folder` that hold one of the needles, once decoded."""
    left_out = set(skip)
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and not left_out & {p, *p.parents})
    return sorted(holding(((path, piece) for path in paths for piece in _decoded(path.name, path)), needles))


def holding(pieces: Iterable[tuple[Name, bytes]], needles: Iterable[bytes]) -> set[Name]:
    """The names of those pieces of data in which a needle occurs."""
    wanted = sorted({needle.decode("latin-1") for needle in needles})
    found: set[Name] = set()
    names: list[Name] = []
    texts: list[str] = []
    size = 0
    if not wanted:
        return found

    def look() -> None:
        hit = pl.Series(texts, dtype=pl.String).str.contains_any(wanted)
        found.update(name for name, here in zip(names, hit, strict=True) if here)

    for name, data in pieces:
        # A letter of latin-1 a byte: whatever the bytes mean, they are found where they stand.
        names.append(name)
        texts.append(data.decode("latin-1"))
        size += len(data)
        if size > BATCH:
            look()
            names, texts, size = [], [], 0
    look()
    return found


def occurring(data: bytes, needles: Iterable[bytes]) -> set[bytes]:
    """Those of the needles that `data` holds, also where they overlap."""
    wanted = sorted({needle.decode("latin-1") for needle in needles})
    if not wanted:
        return set()
    text = pl.Series([data.decode("latin-1")])
    return {found.encode("latin-1") for found in text.str.extract_many(wanted, overlapping=True).explode().drop_nulls()}


def occurring_in(bodies: Iterable[bytes], needles: Iterable[bytes]) -> set[bytes]:
    """Those of the needles that any of the bodies holds, in batches as `holding` has them."""
    found: set[bytes] = set()
    left = set(needles)
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        batch.append(body)
        size += len(body)
        if size > BATCH:
            found |= occurring(b"\n".join(batch), left)
            left -= found
            batch, size = [], 0
    return found | occurring(b"\n".join(batch), left)


def covered(data: bytes, present: Iterable[bytes]) -> list[tuple[int, int]]:
    """The spans of `data` that these needles cover, joined where they touch, in order."""
    patterns = sorted(present, key=len, reverse=True)
    if not patterns:
        return []
    spans: list[tuple[int, int]] = []
    # Within a lookahead, so that needles which overlap are all seen.
    for match in re.finditer(rb"(?=(" + b"|".join(map(re.escape, patterns)) + rb"))", data):
        start, end = match.span(1)
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
    return spans


def stored_values(path: Path) -> Iterator[bytes]:
    """The values of every table of a SQLite file: long ones lie in pieces over its pages, packed ones are unpacked."""
    # Where no log stands beside the file nothing may be laid beside it either: a sealed backup stays as it is.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    with closing(sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=30)) as connection:
        connection.text_factory = bytes
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table.decode()}"'):
                values = [value for value in row if isinstance(value, bytes)]
                yield b"\n".join(values)
                yield from (unpacked for value in values if (unpacked := unzipped(value)) is not None)


def unzipped(value: bytes) -> bytes | None:
    """What a zlib stream holds (Dagster packs its snapshots); None for anything else."""
    try:
        return zlib.decompress(value) if value[:1] == b"\x78" else None
    except zlib.error:
        return None


def _decoded(name: str, source: Path | bytes) -> Iterator[bytes]:
    """The bytes as they stand, and what they hold when unpacked."""
    if isinstance(source, Path) and source.suffix in WEIGHTS:
        yield from _blocks(source)
        return
    data = source.read_bytes() if isinstance(source, Path) else source
    yield data
    if data[:4] == b"PAR1":
        yield from _columns(pl.read_parquet(io.BytesIO(data)))
    elif data[8:12] == b"DUCK" and isinstance(source, Path):
        yield from _tables(source)
    elif data[:15] == b"SQLite format 3" and isinstance(source, Path):
        yield from stored_values(source)
    elif data[:2] == b"\x1f\x8b":
        yield from _archive(name.removesuffix(".gz"), gzip.decompress(data))
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        yield from _archive(name.removesuffix(".zst"), zstandard.ZstdDecompressor().stream_reader(data).read())
    elif name.endswith((".tar", ".zip")) or data[:4] == b"PK\x03\x04":
        yield from _archive(name, data)
    elif Path(name).suffix in MAIL or data[:13] == b"MIME-Version:":
        yield from _parts(data)
    elif Path(name).suffix in WRAPPING or b";base64," in data:
        yield from _unwrapped(data)


def _parts(data: bytes) -> Iterator[bytes]:
    """The parts of a saved page or mail, out of quoted-printable and base64."""
    for part in email.message_from_bytes(data).walk():
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            yield payload


def _unwrapped(data: bytes) -> Iterator[bytes]:
    """What stands in base64 inside JSON or a page: HAR bodies, data URLs, pictures of a notebook."""
    for found in BASE64.finditer(data):
        try:
            decoded = base64.b64decode(found[0].replace(b"\\n", b""), validate=True)
        except ValueError:
            continue
        yield decoded
        if decoded[:2] == b"\x1f\x8b":
            with suppress(OSError, EOFError, zlib.error):
                yield gzip.decompress(decoded)


def _blocks(path: Path) -> Iterator[bytes]:
    """A file piece by piece: models are larger than memory. The pieces overlap, so that no needle falls between."""
    with path.open("rb") as file:
        tail = b""
        while block := file.read(BLOCK):
            yield tail + block
            tail = block[-OVERLAP:]


def _archive(name: str, data: bytes) -> Iterator[bytes]:
    if name.endswith((".tar", ".tgz")):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                if (file := tar.extractfile(member)) is not None:
                    yield from _decoded(member.name, file.read())
    elif data[:4] == b"PK\x03\x04":
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
