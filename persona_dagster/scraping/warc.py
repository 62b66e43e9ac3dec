"""The archive as WARC 1.1 (ISO 28500), for the tools of web archivists: one gzip member a record.

Bodies are byte for byte; header lines are the few that the archive keeps, with the length of the decoded body.
"""

from __future__ import annotations

import base64
import gzip
import os
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from persona_dagster.records import Capture, Source
from persona_dagster.scraping.archive import WALK, Archive


def export_warc(archive: Archive, source: Source, board: str, path: Path) -> int:
    """Write every capture of a board to `path` (`….warc.gz`); returns the number of responses. Whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with temporary.open("wb") as file:
        about = f"software: persona_dagster\r\nformat: WARC File Format 1.1\r\nisPartOf: {source}/{board}\r\n"
        file.write(_record("warcinfo", about.encode(), {"Content-Type": "application/warc-fields"}, datetime.now(UTC)))
        for capture in archive.every(source, board):
            if capture.kind != WALK:  # our own note, no answer of the site
                file.write(_response(capture))
                count += 1
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return count


def _response(capture: Capture) -> bytes:
    status = HTTPStatus(capture.status).phrase if capture.status in HTTPStatus._value2member_map_ else "Unknown"
    lines = [f"HTTP/1.1 {capture.status} {status}"]
    lines += [f"{name}: {value}" for name, value in capture.headers.items()]
    lines += [f"content-length: {len(capture.body)}", "", ""]
    digest = base64.b32encode(bytes.fromhex(capture.sha256)).decode()
    fields = {
        "WARC-Target-URI": capture.url,
        "WARC-Payload-Digest": f"sha256:{digest}",
        "Content-Type": "application/http;msgtype=response",
    }
    return _record("response", "\r\n".join(lines).encode() + capture.body, fields, capture.fetched_at)


def _record(kind: str, block: bytes, fields: dict[str, str], at: datetime) -> bytes:
    head = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{uuid.uuid4()}>",
        "WARC-Date": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        **fields,
        "Content-Length": str(len(block)),
    }
    text = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in head.items()) + "\r\n"
    return gzip.compress(text.encode() + block + b"\r\n\r\n", mtime=0)
