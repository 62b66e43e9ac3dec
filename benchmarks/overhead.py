"""What the graph costs before it does anything: loading the definitions, planning a pass over a large archive.

`python benchmarks/overhead.py [BOARDS DAYS]`; one line a figure. Targets: load < 3 s, planning 200 boards x 365 days
of archive < 10 s.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from persona_dagster.records import Capture, Outcome
from persona_dagster.scraping.archive import Archive

ROOT = Path(__file__).resolve().parent.parent
LOAD = "import time; t = time.perf_counter(); import persona_dagster.definitions; print(time.perf_counter() - t)"


def load_seconds(rounds: int = 3) -> float:
    """Fastest import of the definitions in a process of its own, interpreter start left out."""
    return min(
        float(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", LOAD], capture_output=True, check=True, cwd=ROOT
            ).stdout
        )
        for _ in range(rounds)
    )


def fill(folder: Path, boards: int, days: int) -> None:
    """A part a board and day, two short pages each, as a year of nightly passes leaves them. One board is written
    by the archive, the others are copies of its files."""
    archive, first = Archive(folder), datetime(2025, 11, 1, tzinfo=UTC)
    for day in range(days):
        archive.append(page(day, n, first + timedelta(days=day)) for n in range(2))
    made = next(folder.rglob("board0"))
    for board in range(1, boards):
        shutil.copytree(made, made.with_name(f"board{board}"))


def page(day: int, n: int, at: datetime) -> Capture:
    body = f"page {day} {n}".encode()
    return Capture(
        source="ptt",
        board="board0",
        kind="article",
        key=f"M.{day}.{n}",
        url=f"https://www.ptt.cc/bbs/board0/M.{day}.{n}.html",
        fetched_at=at,
        status=200,
        outcome=Outcome.OK,
        headers={},
        body=body,
        sha256=hashlib.sha256(body).hexdigest(),
    )


def main() -> None:
    boards, days = (int(word) for word in sys.argv[1:3]) if len(sys.argv) > 2 else (200, 365)
    print(f"definitions load: {load_seconds():.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        fill(Path(folder), boards, days)
        archive = Archive(folder)
        print(f"archive of {boards} boards x {days} days filled: {time.perf_counter() - started:.1f} s")
        for state in ("as appended", "compacted"):
            started = time.perf_counter()
            planned = sum(len(archive.histories("ptt", board)) for board in archive.boards("ptt"))
            print(f"planning a pass, {state}: {planned} pages known, {time.perf_counter() - started:.2f} s")
            if state == "as appended":
                started = time.perf_counter()
                for board in archive.boards("ptt"):
                    archive.compact("ptt", board)
                print(f"compaction: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
