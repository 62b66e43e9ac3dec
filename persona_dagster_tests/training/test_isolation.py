"""Nothing of an isolated program stays behind, however it ends: asked of the process table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from persona_dagster.training.isolation import ProgramError, card_lock, run_isolated

# A trainer with two workers; `deaf` ones take no notice of SIGINT and SIGTERM.
PROGRAM = textwrap.dedent(
    """
    import signal, subprocess, sys, time
    from pathlib import Path
    mark, deaf, folder = sys.argv[1], sys.argv[2] == "deaf", Path(sys.argv[3])
    ignore = "import signal as s; s.signal(s.SIGINT, s.SIG_IGN); s.signal(s.SIGTERM, s.SIG_IGN);"
    worker = (ignore if deaf else "") + f"import time; time.sleep(600)  # {mark}"
    workers = [subprocess.Popen([sys.executable, "-c", worker]) for _ in range(2)]
    if deaf:
        exec(ignore)
    try:
        (folder / "ready").touch()
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "checkpoint").touch()
        raise SystemExit(130)
    """
)


def command(folder: Path, kind: str = "good") -> list[str]:
    return [sys.executable, "-c", PROGRAM, folder.name, kind, str(folder)]


def left(folder: Path) -> list[psutil.Process]:
    """Living processes whose command line names this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(folder.name in word for word in process.cmdline())
            if named and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(true, seconds: float = 20) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "waited too long"
        time.sleep(0.02)


def interrupt_when_ready(folder: Path):
    """What Dagster does on a cancellation: an exception out of the wait."""

    def poll() -> None:
        if (folder / "ready").exists():
            raise KeyboardInterrupt

    return poll


@pytest.mark.parametrize("kind", ["good", "deaf"])
def test_a_cancelled_run_leaves_no_process(kind: str, tmp_path: Path, soak: bool) -> None:
    for round_ in range(10 if soak else 2):  # 20 of 20 in all
        folder = tmp_path / f"{tmp_path.name}-{kind}{round_}"
        folder.mkdir()
        with pytest.raises(KeyboardInterrupt):
            run_isolated(
                command(folder, kind), grace_s=5 if kind == "good" else 0.5, on_poll=interrupt_when_ready(folder)
            )
        assert left(folder) == []
        assert (folder / "checkpoint").exists() == (kind == "good"), "SIGINT reached it before SIGKILL"


def test_helpers_that_a_program_forgot_are_ended(tmp_path: Path) -> None:
    helper = f"import time; time.sleep(600)  # {tmp_path.name}"
    forgetful = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {helper!r}])"
    run_isolated([sys.executable, "-c", forgetful])
    wait_until(lambda: left(tmp_path) == [], 2)


def test_the_program_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL of the Dagster step: the kernel sends SIGTERM to the program, which can still save."""
    host = "import sys; from persona_dagster.training.isolation import run_isolated; run_isolated(sys.argv[1:])"
    body = "import signal, sys, time; from pathlib import Path; folder = Path(sys.argv[1])\n"
    body += "signal.signal(signal.SIGTERM, lambda *_: ((folder / 'saved').touch(), sys.exit()))\n"
    body += "(folder / 'ready').touch(); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", host, sys.executable, "-c", body, str(tmp_path)])
    wait_until((tmp_path / "ready").exists)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until((tmp_path / "saved").exists)
    wait_until(lambda: left(tmp_path) == [], 5)


def test_a_failure_tells_status_and_signal() -> None:
    with pytest.raises(ProgramError, match="status 3") as failure:
        run_isolated([sys.executable, "-c", "raise SystemExit(3)"])
    assert failure.value.status == 3
    with pytest.raises(ProgramError, match="SIGKILL; most often the machine was out of memory"):
        run_isolated([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_a_card_is_lent_to_one_at_a_time_and_freed_by_death(tmp_path: Path) -> None:
    holder = "import sys, time; from pathlib import Path; from persona_dagster.training.isolation import card_lock\n"
    holder += "with card_lock(0, Path(sys.argv[1])):\n    Path(sys.argv[1], 'held').touch(); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)])
    wait_until((tmp_path / "held").exists)
    path = tmp_path / "persona-dagster-card-0.lock"
    with pytest.raises(TimeoutError):
        FileLock(path).acquire(timeout=0)
    process.kill()
    process.wait()
    said: list[str] = []
    with card_lock(0, tmp_path, say=said.append):
        assert said == [], "free at once"
