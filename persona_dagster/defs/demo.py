"""`persona demo`: the main job in one process. Scrapes, cleans, mixes, trains, evaluates, and says what was made."""

import sys
import time
from collections.abc import Iterator

import dagster as dg

from persona_dagster.commands.progress_display import Display, spoken
from persona_dagster.commands.run_summary import tell_outcome
from persona_dagster.config.recipes import recipe_names
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.crawl.browser import find_chromium
from persona_dagster.defs.materialize_in_process import Walk, open_walk, run_program, terminal
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.models.hardware import recipe_here
from persona_dagster.models.packaged import check_installed
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

BY_RECIPE = ("recipe_config", "evaluation_config", "mix", "lora_adapter", "generations", "eval_report")


def flow(project: ProjectResource, recipes: tuple[str, ...]) -> Iterator[tuple[str, str | None]]:
    """(asset, partition) in flow order. What was imported is left to `persona build`."""
    boards = [
        (source, board) for source in FORUMS for board in project.sources.partitions(source) if board != IMPORT_BOARD
    ]
    yield "sources_config", None
    yield from ((f"{source}_raw", board) for source, board in boards)
    yield from (("notes_raw", None), ("capybara_raw", None))
    yield from ((f"{source}_posts", board) for source, board in boards)
    for asset in (
        *("notes", "posts", "personas_config", "reply_graph", "voice_labels"),
        *("dialogues", "capybara_dialogues", "split"),
    ):
        yield asset, None
    yield from ((asset, recipe) for recipe in recipes for asset in BY_RECIPE)
    yield "iteration_report", None
    yield from (("hub_release", recipe) for recipe in recipes)


def run(
    settings: Settings, recipes: tuple[str, ...], instance: dg.DagsterInstance, display: Display | None = None
) -> Walk:
    """Walks the whole flow once, and prints what came out."""
    project = ProjectResource.open(settings)
    if settings.cdp_url is None:
        find_chromium(settings.chromium, headed=settings.headed)  # before minutes of work, not after
    for recipe in recipes:
        check_installed(recipe_here(recipe, settings).base.entry)
    walk = open_walk(settings, instance, display or terminal(), "demo", again=False)
    started = time.monotonic()
    walk.over([*flow(project, recipes)], ", ".join(recipes))
    out, took = walk.display.console, spoken(time.monotonic() - started)
    if walk.changed:
        out.print(f"{len(walk.changed)} of {len(walk.ran)} parts changed, in {took}.", highlight=False)
    else:
        out.print(f"[bold]Nothing changed[/bold]: nothing was cleaned, mixed or trained again ({took}).")
    reports = {name: str(path) for name in recipes if (path := walk.numbers("eval_report", name).get("report"))}
    tell_outcome(out, settings, recipes, walk.numbers("posts"), reports)
    return walk


def main() -> None:
    """`python -m persona_dagster.defs.demo [RECIPE …]`: what `persona demo` becomes."""
    settings = Settings()
    recipes = tuple(sys.argv[1:]) or (settings.recipe,)
    known = recipe_names(settings.config_dir, settings.accepted_dir)
    if unknown := set(recipes) - set(known):
        raise SystemExit(f"no recipe named {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    run_program("demo", settings, lambda instance, display: run(settings, recipes, instance, display))


if __name__ == "__main__":
    main()
