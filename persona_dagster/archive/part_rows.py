"""A row of the archive: what is kept of a capture, in which columns, and never the operator's secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from persona_dagster.archive.history import Sighting
from persona_dagster.records import Capture, Outcome, Source

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
    "stored": pl.Boolean,  # false: the same bytes stand in an earlier row
    "body": pl.Binary,
}
INDEX = [name for name in COLUMNS if name != "body"]


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
        "body": None if known else capture.body,
    }


def capture_of(source: Source, board: str, seen: Sighting, body: bytes) -> Capture:
    """The capture that a row tells of, with the body that it names."""
    return Capture(
        source=source,
        board=board,
        kind=seen.kind,
        key=seen.key,
        url=seen.url,
        fetched_at=seen.fetched_at,
        status=seen.status,
        outcome=Outcome(seen.outcome),
        headers=orjson.loads(seen.headers),
        body=body,
        sha256=seen.sha256,
    )


def part_of(rows: list[dict[str, Any]]) -> bytes:
    """A part's bytes."""
    sink = pa.BufferOutputStream()
    table = pl.DataFrame(rows, COLUMNS).to_arrow()
    pq.write_table(table, sink, compression="zstd", compression_level=9, write_page_checksum=True)
    return sink.getvalue().to_pybytes()
