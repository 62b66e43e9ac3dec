"""One crawl a host on this machine: a file lock, and in the file the time before which the host is left alone.

The time outlives the process, so that neither a crash nor the next board's run shortens a pause.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WAIT = 600.0  # seconds that a second board waits for the first one's crawl


class HostBusyError(RuntimeError):
    """Another crawl of this host is under way."""


def lease_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"persona-leases-{os.getuid()}"


class Lease:
    """The held host. The time is rewritten in place, at a fixed width: a new file a request cost 8 ms."""

    def __init__(self, path: Path):
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._next_at = self._read()

    def _read(self) -> float:
        try:
            return float(os.pread(self._descriptor, 64, 0))
        except ValueError:
            return 0.0

    @property
    def next_at(self) -> float:
        """Wall-clock seconds; 0 when nothing is known."""
        return self._next_at

    @next_at.setter
    def next_at(self, value: float) -> None:
        if value != self._next_at:
            os.pwrite(self._descriptor, f"{value:020.3f}".encode(), 0)
            self._next_at = value

    def close(self) -> None:
        os.close(self._descriptor)


@contextmanager
def lease(origin: str, folder: Path | None = None, wait: float = WAIT) -> Iterator[Lease]:
    """Holds the host until the block ends; the lock goes with the process. Raises `HostBusyError`."""
    folder = folder or lease_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = re.sub(r"[^0-9A-Za-z.]+", "_", origin)
    try:
        with FileLock(folder / f"{name}.lock", timeout=wait):
            held = Lease(folder / f"{name}.next")
            try:
                yield held
            finally:
                held.close()
    except Timeout as error:
        raise HostBusyError(f"{origin}: another crawl holds it for more than {wait:.0f} s; run this later") from error
