"""How near the time left that `persona demo` and `persona build` show comes to the truth, from the first minute on.

    python benchmarks/time_left.py [FILE]

A demo in a fresh home, as somebody sees it the first time; then, where a dump is given, two builds of it up to the mix:
by the packaged figures, and by this home's own. On an idle machine. Goal: within 30 % of what it really took, from the
first minute to the last one.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import dagster as dg
from rich.console import Console

from persona_dagster.commands.progress_display import Display
from persona_dagster.defs import build_own_data, demo
from persona_dagster.settings import Settings

FIRST_S, EVERY_S, LAST_S = 60, 10, 30  # sampled from, every, and no more in the last seconds
GOAL = 0.3


def sampled(display: Display, work: Callable[[], object]) -> list[tuple[float, float]]:
    """Runs `work` on `display`, and gives (seconds since its start, seconds shown as left) until it ended."""
    shown: list[tuple[float, float]] = []
    over, started = threading.Event(), time.monotonic()

    def look() -> None:
        while not over.wait(EVERY_S):
            shown.append((time.monotonic() - started, display.estimate.left()))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return [*shown, (time.monotonic() - started, 0.0)]


def report(name: str, shown: list[tuple[float, float]]) -> float:
    """Prints each look, and returns the largest error as a share of the truth."""
    end, worst = shown[-1][0], 0.0
    for at, left in shown[:-1]:
        truth = end - at
        if at >= FIRST_S and truth >= LAST_S:
            error = left / truth - 1
            worst = max(worst, abs(error))
            print(f"{name}: after {at:5.0f} s {left:5.0f} s left, truly {truth:5.0f} s ({error:+.0%})")
    print(f"{name}: {end:.0f} s in all; largest error after the first minute {worst:.0%} (goal {GOAL:.0%})")
    return worst


def main() -> None:
    display, worst = Display(Console(width=118)), []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "demo")
        instance = dg.DagsterInstance.from_config(str(settings.prepare_instance()))
        worst.append(
            report("demo", sampled(display, lambda: demo.run(settings, (settings.recipe,), instance, display)))
        )
    for dump in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            settings = Settings(home=Path(folder) / "build")
            instance = dg.DagsterInstance.from_config(str(settings.prepare_instance()))
            settings.imports_dir.mkdir(parents=True)
            (settings.imports_dir / Path(dump).name).symlink_to(Path(dump).resolve())
            for name in ("first build", "second build"):
                work = partial(build_own_data.run, settings, settings.recipe, "mix", instance, display)
                worst.append(report(name, sampled(display, work)))
    raise SystemExit(max(worst) > GOAL)


if __name__ == "__main__":
    main()
