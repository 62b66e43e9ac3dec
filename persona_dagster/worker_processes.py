"""Processes beside this one: for work that Python does on one core alone, or that may end the process it runs in."""

from __future__ import annotations

import ctypes
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def worker_processes(count: int) -> ProcessPoolExecutor:
    """A pool of fresh processes, none of which outlives this one."""
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_end_with_the_parent)


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would wait for ever for something to do."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
