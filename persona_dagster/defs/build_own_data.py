"""`persona build`: from what was imported, and only that, to posts, a mix or a report, in one process.

Works through the graph in its own order on the instance that the UI shows, under the profile `own`: nothing is crawled,
and no row of the sample stands beside the user's.
"""

import sys
from collections.abc import Iterator
from typing import Literal, cast

import dagster as dg

from persona_dagster.commands.progress_display import Display
from persona_dagster.commands.run_summary import tell_outcome
from persona_dagster.config.recipes import find_recipes
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.materialize_in_process import Walk, open_walk, run_program
from persona_dagster.intake.import_to_archive import STORED, read_ledger
from persona_dagster.models.hardware import hardware_of
from persona_dagster.pipes_reporting import progress_bars
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

Until = Literal["posts", "mix", "report"]
TARGETS: dict[str, tuple[str, ...]] = {
    "posts": ("posts", "notes", "reply_graph"),
    "mix": ("mix",),
    "report": ("eval_report",),
}


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


def run(settings: Settings, recipe: str, until: Until, instance: dg.DagsterInstance, display: Display) -> Walk:
    """Builds as far as `until`, and says what came of it."""
    settings = settings.model_copy(update={"profile": "own"})
    from persona_dagster.archive.archive import Archive
    from persona_dagster.config.sources import load_sources
    from persona_dagster.intake.import_to_archive import take_in

    denied = load_sources(settings.config_dir, settings.profile).denied_boards
    with progress_bars(display.console):
        take_in(settings, Archive(settings.archive_url or settings.raw_dir), denied=denied)
    ledger = read_ledger(settings.intake_dir).filter(fate=STORED)
    notes = settings.notes_dir.is_dir() and any(settings.notes_dir.rglob("*.*"))
    if ledger.is_empty() and not notes:
        raise NothingImportedError(
            f"nothing was imported into {settings.home}; bring something first: persona import PATH "
            "(`persona demo` shows the whole on the packaged sample)"
        )
    out = display.console
    out.print("profile own: what you imported, and nothing else; no site is asked", highlight=False)
    if until != "posts":
        hardware = hardware_of(settings)
        changed = find_recipes(settings.config_dir).item(recipe).overrides(settings.profile, hardware)
        out.print(f"recipe {recipe} on {hardware}, its values changed by overlays: {len(changed)}", highlight=False)
        for line in changed:
            out.print(f"  {line}", highlight=False, markup=False)
    walk = open_walk(settings, instance, display, "build", again=True)
    assert walk.times is not None
    walk.times.rows = ledger.height
    todo = [*flow(walk.defs, recipe, until, set(ledger["source"].unique())), ("row_ledger", None)]
    walk.over(todo, f"{recipe} until {until}, of {ledger.height:,} imported rows")
    report = walk.numbers("eval_report", recipe).get("report") if until == "report" else None
    links = {recipe: str(report)} if report else {"funnel": str(settings.reports_dir / "funnel" / "funnel.html")}
    tell_outcome(out, settings, (recipe,) if until != "posts" else (), walk.numbers("posts"), links)
    return walk


def main() -> None:
    """`python -m persona_dagster.defs.build_own_data RECIPE UNTIL`: what `persona build` starts."""
    recipe, until = sys.argv[1:3]
    settings = Settings()
    run_program(
        "build", settings, lambda instance, display: run(settings, recipe, cast(Until, until), instance, display)
    )


if __name__ == "__main__":
    main()
