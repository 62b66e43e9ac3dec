"""`persona build`: from what was imported, and only that, to posts, a mix or a report, in one process.

Works through the graph in its own order on the instance that the UI shows, under the profile `own`: nothing is crawled,
and no row of the sample stands beside the user's.
"""

import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import dagster as dg
from rich.console import Console

from persona_dagster.artifacts import write_text
from persona_dagster.config.loading import ConfigError
from persona_dagster.config.recipes import find_recipes
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.demo import WIDTH, StepFailedError, Walk
from persona_dagster.intake.take_in import STORED, read_ledger
from persona_dagster.models.hardware import hardware_of
from persona_dagster.records import FORUMS
from persona_dagster.reporting import progress_bars
from persona_dagster.settings import Settings

Until = Literal["posts", "mix", "report"]
TARGETS: dict[str, tuple[str, ...]] = {
    "posts": ("posts", "notes", "reply_graph"),
    "mix": ("mix",),
    "report": ("eval_report",),
}


QUIET = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


class NothingImportedError(ValueError):
    """There is nothing to build from; the message says how to bring it."""


def flow(defs: dg.Definitions, recipe: str, until: Until, sources: set[str]) -> Iterator[tuple[str, str | None]]:
    """(asset, partition) of all that stands before the target, in the graph's order; sites without rows left out."""
    graph = defs.resolve_asset_graph()
    wanted: set[dg.AssetKey] = set()
    for name in TARGETS[until]:
        key = dg.AssetKey(name)
        if graph.has(key):
            wanted |= {key, *graph.get_ancestor_asset_keys(key)}
    for key in graph.toposorted_asset_keys:
        name = key.to_user_string()
        if key not in wanted:
            continue
        site = next((source for source in FORUMS if name in (f"{source}_raw", f"{source}_posts")), None)
        if site:
            if site in sources:
                yield name, IMPORT_BOARD
        else:
            yield name, recipe if graph.get(key).partitions_def is not None else None


def run(settings: Settings, recipe: str, until: Until, instance: dg.DagsterInstance, console: Console) -> Walk:
    """Builds as far as `until`, and says what each step made, how long it took, and how many are left."""
    settings = settings.model_copy(update={"profile": "own"})
    from persona_dagster.archive.archive import Archive
    from persona_dagster.config.sources import load_sources
    from persona_dagster.intake.take_in import take_in

    denied = load_sources(settings.config_dir, settings.profile).denied_boards
    with progress_bars(console):
        take_in(settings, Archive(settings.archive_url or settings.raw_dir), denied=denied)
    ledger = read_ledger(settings.intake_dir).filter(fate=STORED)
    notes = settings.notes_dir.is_dir() and any(settings.notes_dir.rglob("*.*"))
    if ledger.is_empty() and not notes:
        raise NothingImportedError(
            f"nothing was imported into {settings.home}; bring something first: persona import PATH "
            "(`persona demo` shows the whole on the packaged sample)"
        )
    console.print("profile own: what you imported, and nothing else; no site is asked", highlight=False)
    if until != "posts":
        hardware = hardware_of(settings)
        changed = find_recipes(settings.config_dir).item(recipe).overrides(settings.profile, hardware)
        console.print(f"recipe {recipe} on {hardware}, its values changed by overlays: {len(changed)}", highlight=False)
        for line in changed:
            console.print(f"  {line}", highlight=False, markup=False)
    walk = Walk(build_defs(settings), instance, console if console.is_terminal else Console(width=WIDTH), again=True)
    steps = [*flow(walk.defs, recipe, until, set(ledger["source"].unique())), ("row_ledger", None)]
    started = time.monotonic()
    with progress_bars(walk.console):
        for number, (asset, partition) in enumerate(steps):
            walk.console.print(f"[dim]{number + 1} of {len(steps)}, {time.monotonic() - started:.0f} s so far[/dim]")
            walk.step(asset, partition)
    return walk


def main() -> None:
    """`python -m persona_dagster.defs.build RECIPE UNTIL`: what `persona build` starts."""
    recipe, until = sys.argv[1:3]
    cast(io.TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)  # a log shows each step as it is done
    settings = Settings()
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(settings.home / "dagster")))
    if not (home / "dagster.yaml").exists():
        write_text(home / "dagster.yaml", QUIET)
    try:
        with dg.DagsterInstance.get() as instance:
            run(settings, recipe, cast(Until, until), instance, Console(soft_wrap=True))
    except (StepFailedError, NothingImportedError, ConfigError) as error:
        raise SystemExit(str(error)) from None
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        raise SystemExit("Stopped. What was made is kept; run it again.") from None


if __name__ == "__main__":
    main()
