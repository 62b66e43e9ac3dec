"""Captures on their way into a part: each is written down before the next page is asked for.

A part a page would make thousands of files, a part every twenty would let a kill cost twenty pages, which the site
would be asked for again. So they wait here, in one file a board, until they stand in a part.
"""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path
from typing import IO

import orjson

from persona_dagster.archive.lock import BoardLock
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome

LENGTHS = struct.Struct(">II")  # of the head and of the body; a sha256 of both follows them
HEAD = tuple(name for name in Capture.__dataclass_fields__ if name not in ("body", "sha256"))


class Journal:
    """An append-only file, written under the board's lock and emptied in place: whoever forgets or recovers does so
    while a crawl has it open. Bytes reach the kernel with each record, which a kill cannot undo; a power cut can, and
    then costs a batch: no fsync a page."""

    def __init__(self, path: Path | None, lock: BoardLock):
        self.path, self.lock = path, lock  # path None: nothing is written down (an object store cannot append)
        self._file: IO[bytes] | None = None

    def add(self, capture: Capture) -> None:
        if self.path is None:
            return
        head = orjson.dumps({name: getattr(capture, name) for name in HEAD})
        record = LENGTHS.pack(len(head), len(capture.body)) + head + capture.body
        record += sha256(head + capture.body).encode()
        with self.lock:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            self._file.write(record)

    def read(self) -> list[Capture]:
        """Every whole record; a last one that was cut off is no record."""
        if self.path is None or not self.path.exists():
            return []
        data, at, captures = self.path.read_bytes(), 0, []
        while at + LENGTHS.size <= len(data):
            of_head, of_body = LENGTHS.unpack_from(data, at)
            at += LENGTHS.size
            head, body = data[at : at + of_head], data[at + of_head : at + of_head + of_body]
            at += of_head + of_body
            if data[at : at + 64] != sha256(head + body).encode():
                break
            at += 64
            captures.append(_capture(orjson.loads(head), body))
        return captures

    def clear(self) -> None:
        """Empty it: what it holds stands in a part."""
        if self.path is not None and self.path.exists():
            with self.lock, self.path.open("r+b") as file:
                file.truncate()

    def close(self) -> None:
        """Let go of it; empty, it need not stand there."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.path is not None and self.path.exists():
            with self.lock:
                if self.path.stat().st_size == 0:
                    self.path.unlink()


def _capture(head: dict, body: bytes) -> Capture:
    head["fetched_at"] = datetime.fromisoformat(head["fetched_at"])
    head["outcome"] = Outcome(head["outcome"])
    head["names"] = tuple(head.get("names", ()))
    return Capture(**head, body=body, sha256=sha256(body))
