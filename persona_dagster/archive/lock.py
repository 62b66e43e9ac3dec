"""The one lock of a board's archive: whoever writes holds it, for one step. Readers never wait.

A crawl holds it while it writes a page down or stores a part, merging while it replaces a few parts, forgetting while
it rewrites those that hold what must go. So a crawl of hours and a forgetting in its middle pass each other.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from persona_dagster.digest import text_digest

NAME = ".lock"
WAIT = 600.0  # seconds; a step takes about one


class ArchiveBusyError(RuntimeError):
    """Another process holds the board for longer than any step takes."""


class BoardLock(FileLock):
    """Reentrant within one `Archive`; goes with the process. Raises `ArchiveBusyError`."""

    def acquire(self, *arguments, **named):
        try:
            return super().acquire(*arguments, **named)
        except Timeout as error:
            raise ArchiveBusyError(
                f"{self.lock_file} is held by another process for more than {self.timeout:.0f} s; end it, or wait"
            ) from error


def board_lock(folder: Path | None, name: str) -> BoardLock:
    """The lock of a board: in its folder, or on this machine for an archive elsewhere (`folder` None)."""
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"persona-archives-{os.getuid()}" / text_digest(name)
    folder.mkdir(parents=True, exist_ok=True)
    return BoardLock(folder / NAME, timeout=WAIT)
