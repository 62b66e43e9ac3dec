"""Runs a heavy program so that nothing of it stays behind: own process group, death signal, a lock on the card.

An interrupt reaches the whole group as SIGINT, so that the trainer can write its checkpoint; what is left after
the grace gets SIGKILL. If this very process is killed, the kernel tells the program (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from persona_dagster.models.hardware import Card
from persona_dagster.worker_processes import PR_SET_PDEATHSIG

_POLL_SECONDS = 0.2
_DYING_SECONDS = 10


class ProgramError(RuntimeError):
    """The program ended with a status other than 0; its own output says why."""

    def __init__(self, argv: Sequence[str], status: int) -> None:
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        memory = "; most often the machine was out of memory" if status == -signal.SIGKILL else ""
        super().__init__(f"{' '.join(argv)} {how}{memory}. Its own output says why.")
        self.status = status


def run_isolated(
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    grace_s: float = 60,
    on_poll: Callable[[], None] | None = None,
) -> None:
    """Runs `argv` to its end, in a session of its own; whatever ends this call, no process of it is left.

    Args:
        grace_s: seconds between SIGINT and SIGKILL when this call is interrupted by any exception.
        on_poll: called about five times a second; may raise to end the program.

    Raises:
        ProgramError: the program ended with a status other than 0.
    """
    if sys.platform != "linux":
        raise RuntimeError(
            f"isolated programs need Linux's process groups and death signal, not {sys.platform}: use WSL2"
        )
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        # What a script starts with `&` ignores SIGINT, and so would everything below it: no checkpoint on a cancel.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if os.getppid() != parent:  # it died before the kernel knew
            os._exit(1)

    process = subprocess.Popen(argv, env=env, start_new_session=True, preexec_fn=die_with_parent)  # noqa: PLW1509
    try:
        while process.poll() is None:
            if on_poll is not None:
                on_poll()
            try:
                process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
    except BaseException:
        _end_group(process, grace_s)
        raise
    _end_group(process, 0)  # the program is over: helpers that it forgot have nothing to save
    if process.returncode:
        raise ProgramError(argv, process.returncode)


def _end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """SIGINT to the group, SIGKILL to what is left of it after the grace, or at once on a second interrupt."""
    try:
        if grace_s and _signal_group(process.pid, signal.SIGINT):
            ends = time.monotonic() + grace_s
            while time.monotonic() < ends and _alive(process):
                time.sleep(_POLL_SECONDS)
    finally:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        # Its children die by the same signal, a moment later: whoever starts the next training wants the card free.
        ends = time.monotonic() + _DYING_SECONDS
        while time.monotonic() < ends and _alive(process):
            time.sleep(_POLL_SECONDS / 10)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether any process of the group runs; one that is dead and not yet reaped does not."""
    process.poll()
    return any(_in_group(other, process.pid) for other in psutil.process_iter())


def _in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def _signal_group(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def lend_cards(
    count: int, here: Sequence[Card], folder: Path | None = None, say: Callable[[str], None] = print
) -> Iterator[list[Card]]:
    """`count` of the cards `here`, for this process and what it becomes by exec: the freest that nobody trains on.

    One lock a card, by its UUID, on this machine, across projects, homes and users. While too few are free none is
    kept, so that two who each want two of two wait for no other for ever. The kernel frees a lock however its holder
    ends.
    """
    held: dict[Card, int] = {}
    waiting = False
    while len(held) < count:
        for card in sorted(here, key=lambda card: (-card.free_gib, card.index)):
            if len(held) < count and (descriptor := _try_lock(_lock_path(card, folder))) is not None:
                held[card] = descriptor
        if len(held) < count:
            _release(held)
            if not waiting:
                say(f"{count} of {len(here)} card(s) wanted, fewer are free of other trainings; waiting")
                waiting = True
            time.sleep(_POLL_SECONDS)
    try:
        yield sorted(held, key=lambda card: card.index)
    finally:
        _release(held)


def _lock_path(card: Card, folder: Path | None) -> Path:
    return (folder or Path(tempfile.gettempdir())) / f"persona-dagster-card-{card.uuid or card.index}.lock"


def _try_lock(path: Path) -> int | None:
    """A descriptor that holds the lock and outlives exec; None where another holds it."""
    try:  # O_CREAT on a file of another user is refused in a sticky folder (fs.protected_regular)
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.set_inheritable(descriptor, True)
    return descriptor


def _release(held: dict[Card, int]) -> None:
    for descriptor in held.values():
        os.close(descriptor)
    held.clear()
