"""Where a program of ours says what it does: to Dagster through Pipes when it runs under it, else to the terminal.

`progress` is called by long loops; it costs nothing unless somebody shows it (`progress_bars`, `listening`). A program
that a run started counts for that run's display: through a file, where $PERSONA_PROGRESS names one.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task, TaskID

Listener = Callable[[str, int, int | None], None]
LINE_EVERY = 15  # seconds: where no terminal is, a line and no bar
COUNTED_IN = "PERSONA_PROGRESS"
_POLL_SECONDS = 0.5
_listeners: list[Listener] = []


def progress(what: str, done: int, total: int | None = None) -> None:
    """`done` (of `total`, where that is known) of what is counted under the name `what`, since its start."""
    for listener in _listeners:
        listener(what, done, total)
    if not _listeners and (path := os.environ.get(COUNTED_IN)):
        Path(path).write_text(json.dumps([what, done, total]), encoding="utf-8")


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener` with all that is counted within: here, and in the programs that are started here."""
    over = threading.Event()

    def follow(path: Path) -> None:
        known = ""
        while not over.wait(_POLL_SECONDS):
            if (text := path.read_text(encoding="utf-8")) != known:
                try:
                    what, done, total = json.loads(text)
                except ValueError:  # half written
                    continue
                known = text
                listener(what, done, total)

    with tempfile.NamedTemporaryFile(prefix="persona-progress-") as file:
        os.environ[COUNTED_IN] = file.name
        thread = threading.Thread(target=follow, args=(Path(file.name),), daemon=True)
        _listeners.append(listener)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            _listeners.remove(listener)
            del os.environ[COUNTED_IN]


@contextmanager
def progress_bars(console: Console) -> Iterator[None]:
    """Shows what `progress` is told within: count, rate, time so far and left; in a log, as a line now and then."""
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")  # none at the start

    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.completed:,.0f}")),
        *(Speed(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()),
    )
    hidden, steady = not console.is_terminal, 120  # seconds that the rate is taken over
    with Progress(*columns, console=console, transient=True, disable=hidden, speed_estimate_period=steady) as bars:
        tasks: dict[str, TaskID] = {}
        last = time.monotonic()

        def show(what: str, done: int, total: int | None) -> None:
            nonlocal last
            if what not in tasks or done < bars.tasks[bars.task_ids.index(tasks[what])].completed:
                if what in tasks:
                    bars.remove_task(tasks[what])
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)
            if not console.is_terminal and time.monotonic() - last >= LINE_EVERY:
                last = time.monotonic()
                console.print(_line(bars.tasks[bars.task_ids.index(tasks[what])]), highlight=False)
            if done == total:
                bars.remove_task(tasks.pop(what))

        _listeners.append(show)
        try:
            yield
        finally:
            _listeners.remove(show)


def _line(task: Task) -> str:
    """A bar in words."""
    of = f" of {task.total:,.0f}" if task.total else ""
    rate = f", {task.speed:,.0f}/s" if task.speed else ""
    left = f", {task.time_remaining:,.0f} s left" if task.time_remaining is not None else ""
    return f"    {task.description}: {task.completed:,.0f}{of}{rate}{left}"


class Reporter:
    """Lines while it runs, one materialization at the end."""

    def __init__(self, pipes: PipesContext | None, quiet: bool = False) -> None:
        self.pipes, self.quiet = pipes, quiet

    def line(self, text: str) -> None:
        """One line: under Dagster each is a row of the event log, so not one a step."""
        if self.pipes is not None:
            self.pipes.log.info(text)
        if not self.quiet:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        if self.pipes is not None:
            self.pipes.log.warning(text)
        if not self.quiet:
            print(f"warning: {text}", flush=True)

    def finish(self, metadata: Mapping[str, Any], data_version: str) -> None:
        """The result: `metadata` in the forms of Pipes, versioned by content."""
        if self.pipes is not None:
            self.pipes.report_asset_materialization(metadata=metadata, data_version=data_version)


@contextmanager
def open_reporter() -> Iterator[Reporter]:
    # Under torchrun every rank inherits the pipe: rank 0 speaks.
    if os.environ.get("RANK", "0") != "0":
        yield Reporter(None, quiet=True)
        return
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        yield Reporter(None)
        return
    with open_dagster_pipes() as pipes:
        yield Reporter(pipes)
