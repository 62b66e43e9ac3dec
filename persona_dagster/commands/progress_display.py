"""What a long command shows: the plan with the time it is expected to take, one live display with stage, rate and time
left, and plain lines where no terminal is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import yaml
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from persona_dagster.artifacts import write_json
from persona_dagster.pipes_reporting import listening, progress_bars

PACKAGED = Path(__file__).with_name("times.yaml")
SHORT_S = 0.7  # of a step that finds nothing to do, Dagster's own part of any
PRIOR_S = 60  # seconds of steps before this machine's pace counts as much as the expected one
PRIOR_SHARE = 0.1  # of what a stage counts, as which its expected time weighs against what was measured
LONG_S = 45  # a step from which on a line says that it began, where no terminal is
DRAWN_A_SECOND = 4


@dataclass(frozen=True)
class Step:
    """One asset partition to materialise; `expected` in seconds, 0 where it stands already."""

    name: str  # asset, or `asset · partition`
    stage: str
    expected: float


@dataclass
class Times:
    """Seconds of each step: as this home took last, else as measured for the package (on the sample's rows)."""

    path: Path
    rows: int | None = None  # of this run's corpus; None: as many as last
    made: dict[str, float] = field(default_factory=dict)
    unchanged: dict[str, float] = field(default_factory=dict)
    stored_rows: int | None = None

    def __post_init__(self) -> None:
        self.packaged = yaml.safe_load(PACKAGED.read_text(encoding="utf-8"))
        try:
            stored = json.loads(self.path.read_bytes())
            self.made, self.unchanged, self.stored_rows = stored["made"], stored["unchanged"], stored["rows"]
        except (OSError, ValueError, KeyError, TypeError):  # a cache: one that cannot be read is written anew
            pass

    def expected(self, name: str, *, stands: bool) -> float:
        asset = name.partition(" · ")[0]
        if stands:
            return self.unchanged.get(name, SHORT_S)
        seconds, rows = self.made.get(name), self.stored_rows
        if seconds is None:
            known: dict[str, float] = self.packaged["seconds"]
            seconds, rows = known.get(name, known.get(asset, SHORT_S)), self.packaged["rows"]
        if self.rows and rows and asset in self.packaged["grows_with_rows"]:
            return SHORT_S + max(0.0, seconds - SHORT_S) * self.rows / rows
        return float(seconds)

    def save(self) -> None:
        values = {"rows": self.rows or self.stored_rows, "made": self.made, "unchanged": self.unchanged}
        write_json(self.path, values)


class Estimate:
    """The time that is left: what the steps ahead are expected to take, at the pace of those that are done."""

    def __init__(self, steps: Sequence[Step], clock: Callable[[], float] = time.monotonic) -> None:
        self.steps, self.clock = list(steps), clock
        self.took: dict[str, float] = {}
        self.current: str | None = None
        self.what, self.done = "", 0  # what the current step counts
        self.total: int | None = None
        self.began = self.counted_from = self.counted_at = self.started = clock()
        self.done_from = 0

    def begin(self, name: str) -> None:
        self.current, self.began = name, self.clock()
        self.what, self.done, self.total = "", 0, None

    def counted(self, what: str, done: int, total: int | None) -> None:
        if what != self.what or done < self.done:
            self.counted_from, self.done_from = self.clock(), done
        self.counted_at = self.clock()
        self.what, self.done, self.total = what, done, total

    def end(self) -> float:
        """Seconds that the current step took."""
        assert self.current is not None
        seconds = self.clock() - self.began
        self.took[self.current], self.current = seconds, None
        return seconds

    @property
    def rate(self) -> float | None:
        """Of what is counted, a second."""
        passed = self.counted_at - self.counted_from
        return (self.done - self.done_from) / passed if passed > 1 and self.done > self.done_from else None

    @property
    def pace(self) -> float:
        """Seconds here for a second that was expected."""
        known = [
            (step.expected, self.took[step.name]) for step in self.steps if step.expected and step.name in self.took
        ]
        return (PRIOR_S + sum(took for _, took in known)) / (PRIOR_S + sum(expected for expected, _ in known))

    def left(self) -> float:
        """Seconds."""
        ahead = sum(step.expected for step in self.steps if step.name not in self.took and step.name != self.current)
        return ahead * self.pace + self._left_of_current()

    def _left_of_current(self) -> float:
        if self.current is None:
            return 0.0
        spent = self.clock() - self.began
        expected = next((step.expected for step in self.steps if step.name == self.current), 0.0) * self.pace
        counted = self._left_by_count(expected)
        overdue = 0.1 * spent if not counted and spent > expected else 0.0
        return max(expected - spent, counted, overdue)

    def _left_by_count(self, expected: float) -> float:
        """At the rate of what was counted, which weighs little while little was: the first ones load and warm up."""
        if not self.total or not self.rate:
            return 0.0
        # As of the last count: what is counted in batches is not slower for standing still between two of them.
        passed, done = self.counted_at - self.counted_from, self.done - self.done_from
        foreseen = max(expected - (self.counted_from - self.began), 0.0)  # for all that is counted
        weight = PRIOR_SHARE * self.total if foreseen else 0.0
        each = (PRIOR_SHARE * foreseen + passed) / (weight + done)
        return max((self.total - self.done) * each - (self.clock() - self.counted_at), 0.0)


class Display:
    """Tells on `console` what happens: a live table by stage in a terminal, else a line a step."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.estimate = Estimate([], clock)
        self._drawn = False  # a live table, so no line a step

    @contextmanager
    def running(self, steps: Sequence[Step], title: str) -> Iterator[None]:
        """Within it, the plan stands above and `steps` are counted down."""
        self.estimate = Estimate(steps, self.clock)
        planned = sum(step.expected for step in steps)
        self.console.print(f"[bold]{title}[/bold]: {len(steps)} steps, about {spoken(planned)}", highlight=False)
        with listening(self.estimate.counted):
            if not self.console.is_terminal:
                stages = (f"{stage} {spoken(sum(one.expected for one in some))}" for stage, some in self._stages())
                self.console.print(f"  {', '.join(stages)}", style="dim", highlight=False)
                with progress_bars(self.console):  # a line now and then
                    yield
                return
            self._drawn = True
            with Live(console=self.console, get_renderable=self._render, refresh_per_second=DRAWN_A_SECOND):
                yield
            self._drawn = False

    def plan(self, steps: Sequence[Step]) -> None:
        """What is expected of the steps ahead: news came in, and what stood has to be made again."""
        known = {step.name: step for step in self.estimate.steps if step.name in self.estimate.took}
        self.estimate.steps = [known.get(step.name, step) for step in steps]

    def begin(self, name: str) -> None:
        self.estimate.begin(name)
        expected = next((step.expected for step in self.estimate.steps if step.name == name), 0.0)
        if not self._drawn and expected >= LONG_S:
            self.console.print(f"  [cyan]…[/cyan] {name}: about {spoken(expected)}", highlight=False)

    def end(self, summary: str, *, changed: bool) -> float:
        """Ends the current step; returns its seconds."""
        name, seconds = self.estimate.current, self.estimate.end()
        if not self._drawn:
            mark = "[green]✓[/green]" if changed else "[dim]=[/dim]"
            left = f"; about {spoken(self.estimate.left())} left" if seconds >= LONG_S else ""
            self.console.print(f"  {mark} {name}: {summary} ({seconds:.1f} s{left})", highlight=False)
        return seconds

    def stands(self, name: str) -> None:
        """A step that has nothing to do."""
        self.estimate.took[name] = 0.0
        if not self._drawn:
            self.console.print(f"  [dim]= {name}: nothing changed[/dim]", highlight=False)

    def _stages(self) -> list[tuple[str, list[Step]]]:
        found: dict[str, list[Step]] = {}
        for step in self.estimate.steps:
            found.setdefault(step.stage, []).append(step)
        return list(found.items())

    def _render(self) -> Group:
        now = self.estimate
        table = Table.grid(padding=(0, 2))
        for stage, steps in self._stages():
            done = [step for step in steps if step.name in now.took]
            at_work = any(step.name == now.current for step in steps)
            mark = "[green]✓[/green]" if len(done) == len(steps) else "[cyan]▶[/cyan]" if at_work else " "
            spent = sum(now.took[step.name] for step in done) + (now.clock() - now.began if at_work else 0)
            expected = f"about {spoken(sum(step.expected for step in steps))}"
            time_of = (
                spoken(spent) if len(done) == len(steps) else f"{spoken(spent)}, {expected}" if spent else expected
            )
            table.add_row(mark, stage, f"{len(done)} of {len(steps)}", time_of, self._counted() if at_work else "")
        spent, left = now.clock() - now.started, now.left()
        last = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=spent + left or 1, completed=spent, width=30)
        last.add_row("", bar, f"{spoken(spent)} so far, about [bold]{spoken(left)}[/bold] left")
        return Group(table, Text(), last)

    def _counted(self) -> str:
        """What the step at work counts, and how fast."""
        now = self.estimate
        if not now.what:
            return f"[dim]{now.current}[/dim]"
        total = f" of {now.total:,}" if now.total else ""
        return f"[dim]{now.what} {now.done:,}{total}" + (f", {now.rate:,.1f}/s" if now.rate else "") + "[/dim]"


def spoken(seconds: float) -> str:
    """`8 s`, `1 min 20 s`, `12 min`, `2 h 5 min`: as exact as it can be known."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 5:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def chatter_in(log: Path) -> Iterator[TextIO]:
    """Puts what libraries and programs print from now on into `log`, and yields the terminal.

    Also what they print while this process ends: only Python's own output goes to the terminal again afterwards.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", buffering=1)
    errors = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace", buffering=1)
    sys.stdout.flush()
    sys.stderr.flush()
    file = log.open("w", encoding="utf-8", buffering=1)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    sys.stdout = sys.stderr = file
    try:
        yield terminal
    finally:
        sys.stdout, sys.stderr = terminal, errors
