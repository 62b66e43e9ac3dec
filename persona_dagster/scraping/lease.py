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
    def __init__(self, path: Path):
        self.path = path

    @property
    def next_at(self) -> float:
        """Wall-clock seconds; 0 when nothing is known."""
        try:
            return float(self.path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0.0

    @next_at.setter
    def next_at(self, value: float) -> None:
        # Without fsync: after a power cut the pause has passed anyway.
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(f"{value:.3f}", encoding="ascii")
        temporary.replace(self.path)


@contextmanager
def lease(origin: str, folder: Path | None = None, wait: float = WAIT) -> Iterator[Lease]:
    """Holds the host until the block ends; the lock goes with the process. Raises `HostBusyError`."""
    folder = folder or lease_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = re.sub(r"[^0-9A-Za-z.]+", "_", origin)
    try:
        with FileLock(folder / f"{name}.lock", timeout=wait):
            yield Lease(folder / f"{name}.next")
    except Timeout as error:
        raise HostBusyError(f"{origin}: another crawl holds it for more than {wait:.0f} s; run this later") from error
