"""Nothing of an isolated program stays behind, however it ends: asked of the process table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import psutil
import pytest
from filelock import FileLock

from persona_dagster.models.hardware import Card
from persona_dagster.training.isolation import ProgramError, lend_cards, run_isolated

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


def card(index: int, free_gib: float = 10.0) -> Card:
    return Card(index, "a card of 12 GB", 12.0, free_gib, f"GPU-{index}")


def test_a_card_is_lent_to_one_at_a_time_and_freed_by_death(tmp_path: Path) -> None:
    holder = "import sys, time; from pathlib import Path; from persona_dagster.models.hardware import Card\n"
    holder += "from persona_dagster.training.isolation import lend_cards\n"
    holder += "with lend_cards(1, [Card(0, '', 12.0, 10.0, 'GPU-0')], Path(sys.argv[1])):\n"
    holder += "    Path(sys.argv[1], 'held').touch(); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path)])
    wait_until((tmp_path / "held").exists)
    with pytest.raises(TimeoutError):
        FileLock(tmp_path / "persona-dagster-card-GPU-0.lock").acquire(timeout=0)
    process.kill()
    process.wait()
    said: list[str] = []
    with lend_cards(1, [card(0)], tmp_path, say=said.append):
        assert said == [], "free at once"


def test_four_on_four_cards_wait_for_none(tmp_path: Path) -> None:
    here = [card(0, 2.0), card(1, 9.0), card(2, 11.0), card(3, 10.0)]
    said: list[str] = []
    with ExitStack() as stack:
        lent = [stack.enter_context(lend_cards(1, here, tmp_path, say=said.append))[0].index for _ in here]
    assert lent == [2, 3, 1, 0] and said == [], "the freest first, and nobody waited"


def test_two_who_want_two_of_three_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """While too few are free none is kept: a third, who wants one, gets it."""
    here = [card(0), card(1), card(2)]
    with lend_cards(2, here, tmp_path) as first:
        said: list[str] = []
        Thread(target=lambda: _took_two(here, tmp_path, said), daemon=True).start()
        wait_until(lambda: said, 5)
        wait_until(lambda: _took(here[2], tmp_path), 5)
        assert [one.index for one in first] == [0, 1]


def _took_two(here: list[Card], folder: Path, said: list[str]) -> None:
    with lend_cards(2, here, folder, say=said.append):
        pass


def _took(one: Card, folder: Path) -> bool:
    with lend_cards(1, [one], folder):
        return True


def test_the_lock_outlives_exec(tmp_path: Path) -> None:
    """The launcher of several ranks becomes torchrun: the cards stay its own."""
    program = "import os, sys; from pathlib import Path; from persona_dagster.models.hardware import Card\n"
    program += "from persona_dagster.training.isolation import lend_cards\n"
    program += "with lend_cards(1, [Card(0, '', 12.0, 10.0, 'GPU-0')], Path(sys.argv[1])):\n"
    after = "import sys, time; open(sys.argv[1] + '/became', 'w').close(); time.sleep(600)"
    program += f"    os.execv(sys.executable, [sys.executable, '-c', {after!r}, sys.argv[1]])"
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    wait_until((tmp_path / "became").exists)
    with pytest.raises(TimeoutError):
        FileLock(tmp_path / "persona-dagster-card-GPU-0.lock").acquire(timeout=0)
    process.kill()
    process.wait()
