"""A part of the archive: an immutable zstd Parquet file of captures, which never holds the operator's secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC
from itertools import chain
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome, Source

PART_BYTES = 16 << 20  # decoded: what a reader of a whole part must hold
GROUP_ROWS = 200  # of a row group: what one look-up must decode
SLICE_ROWS = 5 * GROUP_ROWS  # turned into columns at a time, each step of which is a copy
# Never stored: what would let somebody act as the operator.
KEPT_HEADERS = frozenset(["content-type", "date", "last-modified", "etag", "cache-control", "retry-after", "server"])
SECRETS = re.compile(r"([?&](?:access_token|token|client_secret|key)=)[^&#]*")

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "kind": pl.String,
    "key": pl.String,
    "url": pl.String,
    "fetched_at": pl.Datetime("us", "UTC"),
    "status": pl.Int32,
    "outcome": pl.String,
    "headers": pl.String,
    "sha256": pl.String,
    "stored": pl.Boolean,  # false: the same bytes stand in another row
    "names": pl.List(pl.String),  # of a list: the posts that it names
    "size": pl.Int64,  # bytes of the body, 0 where it is not stored
    "body": pl.Binary,
}
INDEX = [name for name in COLUMNS if name not in ("body", "headers")]
LATER = {"names": None, "size": 0}  # columns that parts of before 0.2 lack


class ArchiveDamagedError(RuntimeError):
    """A part whose bytes are not what was written."""


class PartGoneError(RuntimeError):
    """A part that was merged or rewritten since it was looked up."""


def without_secrets(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The address and the headers as they may be written down."""
    kept = {name.lower(): value for name, value in headers.items() if name.lower() in KEPT_HEADERS}
    return SECRETS.sub(r"\1REDACTED", url), kept


def row_of(capture: Capture, known: bool) -> dict[str, Any]:
    """The row of a capture; without the body where the same bytes are `known`."""
    url, headers = without_secrets(capture.url, capture.headers)
    return {
        "kind": capture.kind,
        "key": capture.key,
        "url": url,
        "fetched_at": capture.fetched_at.astimezone(UTC),
        "status": capture.status,
        "outcome": capture.outcome.value,
        "headers": orjson.dumps(headers).decode(),
        "sha256": capture.sha256,
        "stored": not known,
        "names": list(capture.names) or None,
        "size": 0 if known else len(capture.body),
        "body": None if known else capture.body,
    }


def capture_of(source: Source, board: str, row: Mapping[str, Any], body: bytes) -> Capture:
    """The capture that a row tells of, with the body that it names."""
    return Capture(
        source=source,
        board=board,
        kind=row["kind"],
        key=row["key"],
        url=row["url"],
        fetched_at=row["fetched_at"],
        status=row["status"],
        outcome=Outcome(row["outcome"]),
        headers=orjson.loads(row["headers"]),
        body=body,
        sha256=row["sha256"],
        names=tuple(row["names"] or ()),
    )


def part_of(rows: list[dict[str, Any]]) -> bytes:
    """A part's bytes."""
    sink = pa.BufferOutputStream()
    slices = (rows[start : start + SLICE_ROWS] for start in range(0, len(rows), SLICE_ROWS))
    tables = (pl.DataFrame(some, COLUMNS).to_arrow() for some in slices)
    first = next(tables)
    with pq.ParquetWriter(
        sink, first.schema, compression="zstd", compression_level=9, write_page_checksum=True
    ) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=GROUP_ROWS)
    return sink.getvalue().to_pybytes()


class PartReader:
    """Reads parts, a row group at a time; the groups that were read last are kept."""

    KEPT = 4

    def __init__(self, fs: AbstractFileSystem):
        self.fs = fs
        self._groups: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def index(self, part: str) -> list[dict[str, Any]]:
        """Every row without headers and body. Raises `PartGoneError`, `ArchiveDamagedError`."""
        return self._rows(part, None, INDEX)

    def whole(self, part: str) -> list[dict[str, Any]]:
        """Every row with its body (where it is stored), each verified."""
        rows = self._rows(part, None, list(COLUMNS))
        for number, row in enumerate(rows):
            _verify(part, number, row)
            row["size"] = len(row["body"] or b"")  # parts of before 0.2 do not say
        return rows

    def row(self, part: str, number: int) -> dict[str, Any]:
        """One row with its body, verified."""
        group = number // GROUP_ROWS
        if (part, group) not in self._groups:
            rows = self._rows(part, group, list(COLUMNS))
            if len(self._groups) >= self.KEPT:
                self._groups.pop(next(iter(self._groups)))
            self._groups[part, group] = rows
        found = self._groups[part, group][number % GROUP_ROWS]
        _verify(part, number, found)
        return found

    def forget(self, parts: Iterable[str]) -> None:
        """Let go of what was read of these parts."""
        gone = set(parts)
        self._groups = {name: rows for name, rows in self._groups.items() if name[0] not in gone}

    def _rows(self, part: str, group: int | None, columns: list[str]) -> list[dict[str, Any]]:
        try:
            local = isinstance(self.fs, LocalFileSystem)
            source = part if local else pa.BufferReader(self.fs.cat_file(part))
            with pq.ParquetFile(source, page_checksum_verification=True) as file:
                there = [name for name in columns if name in file.schema_arrow.names]
                if group is None or file.num_row_groups == 1:
                    # Parts of before 0.2 have one group, of at most as many rows.
                    table = file.read(there, use_threads=False)
                else:
                    table = file.read_row_group(group, there, use_threads=False)
        except FileNotFoundError as error:
            raise PartGoneError(part) from error
        except (pa.ArrowException, OSError) as error:
            raise ArchiveDamagedError(f"{part}: cannot be read ({error}); restore this part from a backup") from error
        # By way of polars: pyarrow's own conversions import pandas, 0.3 s.
        rows = pl.DataFrame(pl.from_arrow(table)).to_dicts()
        missing = {name: LATER[name] for name in columns if name not in there}
        return [{**row, **missing} for row in rows] if missing else rows


def _verify(part: str, number: int, row: Mapping[str, Any]) -> None:
    if row["stored"] and (row["body"] is None or sha256(row["body"]) != row["sha256"]):
        where = f"{part} row {number} ({row['key']})"
        raise ArchiveDamagedError(f"{where}: the body fails its sha256; restore from a backup")
