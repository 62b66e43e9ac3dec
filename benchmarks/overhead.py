"""What the graph costs before it does anything: loading the definitions, starting the UI, a pass that finds nothing
new, planning a pass over a large archive.

`python benchmarks/overhead.py [load ui pass plan]`; one line a figure. Targets: load < 3 s, the UI answers within 15 s,
a pass without news < 20 s on the tiny profile, planning 200 boards x 365 days of archive < 10 s.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from persona_dagster.archive.archive import Archive
from persona_dagster.records import Capture, Outcome

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
    started = time.process_time()
    Archive(folder).histories("ptt", "board0")  # writes the index file, as a pass does
    print(f"one board of {days} parts, read one by one: {time.process_time() - started:.2f} CPU-s")
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


def ui_seconds(home: Path) -> float:
    """From the command of `make ui` until the page is served."""
    (home / "dagster").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "local" / "dagster.yaml", home / "dagster")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "PERSONA_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "--host", "127.0.0.1", "--port", port]
    client = httpx.Client(verify=False, trust_env=False, timeout=5)  # made once: it is 0.3 CPU-s
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                client.get(f"http://127.0.0.1:{port}/server_info").raise_for_status()
                return time.perf_counter() - started
            except httpx.HTTPError:
                time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def passes(home: Path) -> tuple[float, float]:
    """Seconds of the whole tiny graph, and of the pass after it that finds nothing new."""
    import dagster as dg

    from persona_dagster.defs.demo import run
    from persona_dagster.settings import Settings

    settings, seconds = Settings(home=home, profile="tiny", hardware="cpu"), []
    (home / "dagster").mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        for _ in range(2):
            started = time.perf_counter()
            walk = run(settings, ("persona_v2",), instance)
            seconds.append(time.perf_counter() - started)
    assert not walk.changed, walk.changed
    return seconds[0], seconds[1]


def plan(folder: Path, boards: int = 200, days: int = 365) -> None:
    started = time.perf_counter()
    fill(folder, boards, days)
    print(f"archive of {boards} boards x {days} days filled: {time.perf_counter() - started:.1f} s")
    archive = Archive(folder)
    started, cpu = time.perf_counter(), time.process_time()
    planned = sum(len(archive.histories("ptt", board)) for board in archive.boards("ptt"))
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"planning a pass over {boards} boards x {days} days: {planned} pages known, {wall:.2f} s ({cpu:.2f} CPU-s)")


def main() -> None:
    wanted = sys.argv[1:] or ["load", "ui", "pass", "plan"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "load" in wanted:
            print(f"definitions load: {load_seconds():.2f} s", flush=True)
        if "ui" in wanted:
            print(f"the UI answers after {ui_seconds(folder / 'ui'):.1f} s", flush=True)
        if "pass" in wanted:
            whole, nothing = passes(folder / "pass")
            print(f"the whole tiny graph: {whole:.1f} s; a pass without news: {nothing:.1f} s", flush=True)
        if "plan" in wanted:
            plan(folder / "plan", int(os.environ.get("BOARDS", "200")))


if __name__ == "__main__":
    main()
