"""The main job in one process: scrape, clean, mix, train, evaluate, and say what was made.

`python -m persona_dagster.defs.demo [RECIPE …]` works through the graph in flow order on the instance that the UI
shows. What Dagster calls fresh is left alone, so a second run only asks the sites whether something is new.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import dagster as dg
from rich.console import Console
from rich.table import Table

from persona_dagster.config.recipes import recipe_names
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.staleness import is_fresh
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

CONFIGS = ("recipe_config", "evaluation_config")
RAW = (*(f"{source}_raw" for source in FORUMS), "notes_raw", "capybara_raw")
ALWAYS = {*RAW, "sources_config", "personas_config", "voice_labels", *CONFIGS}
BY_RECIPE = (*CONFIGS, "mix", "lora_adapter", "generations", "eval_report")
WIDTH = 118  # of the summary where the terminal does not say
DISK_IS_FULL = ("No space left on device", "disk is full", "Disk quota exceeded")
FULL_DISK = "The disk is full: free some space, or move PERSONA_HOME to a larger disk, and run it again."
INTERRUPTIONS = {"KeyboardInterrupt", "DagsterExecutionInterruptedError"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # failures are told in a line of our own


class StepFailedError(RuntimeError):
    """An asset of the walk failed; the message is its own error, which names the cure."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} failed: {why}\nWhat was made before it is kept. `make ui` shows the whole log.")


def cause_of(result: dg.ExecuteInProcessResult) -> str:
    """The error that our own code raised, without what Dagster wraps around it.

    Raises KeyboardInterrupt where that error is Ctrl-C, which Dagster records as a failure of the step.
    """
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None)
        if event.is_step_failure and error:
            if any(one and one.cls_name in INTERRUPTIONS for one in (error, error.cause)):
                raise KeyboardInterrupt
            why = str((error.cause or error).message).strip()
            return f"{why}\n{FULL_DISK}" if any(sign in why for sign in DISK_IS_FULL) else why
    return "no error was recorded"


@dataclass
class Walk:
    """One walk over the graph, and what it did."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    console: Console
    ran: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    again: bool = False  # whether also what is fresh is materialised

    def step(self, asset: str, partition: str | None = None) -> None:
        """Materialises one asset partition unless it is fresh, and prints a line either way."""
        name = f"{asset} · {partition}" if partition else asset
        if not self.again and asset not in ALWAYS and is_fresh(self.defs, self.instance, asset, partition):
            self.console.print(f"  [dim]= {name}: nothing changed[/dim]", highlight=False)
            return
        before = self.version(asset, partition)
        started = time.monotonic()
        job = self.defs.resolve_implicit_global_asset_job_def()
        self.console.print(f"  [cyan]…[/cyan] {name}", highlight=False)
        result = job.execute_in_process(
            partition_key=partition,
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset)],
            run_config=QUIET,
            raise_on_error=False,
        )
        if not result.success:
            raise StepFailedError(name, cause_of(result))
        self.ran.append(name)
        changed = before != self.version(asset, partition)
        if changed:
            self.changed.append(name)
        mark = "[green]✓[/green]" if changed else "[dim]=[/dim]"
        seconds = time.monotonic() - started
        self.console.print(f"  {mark} {name}: {self.summary(asset, partition)} ({seconds:.1f} s)", highlight=False)

    def event(self, asset: str, partition: str | None = None) -> dg.AssetMaterialization | None:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None), limit=1
        ).records
        return records[0].asset_materialization if records else None

    def version(self, asset: str, partition: str | None) -> str | None:
        event = self.event(asset, partition)
        return (event.tags or {}).get("dagster/data_version") if event else None

    def numbers(self, asset: str, partition: str | None = None) -> dict[str, object]:
        event = self.event(asset, partition)
        return {key: value.value for key, value in event.metadata.items()} if event else {}

    def summary(self, asset: str, partition: str | None) -> str:
        plain = [
            f"{key.removeprefix('dagster/').replace('_', ' ')} {_cell(value)}"
            for key, value in self.numbers(asset, partition).items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return ", ".join(plain[:5]) or "done"


def flow(project: ProjectResource, recipes: tuple[str, ...]) -> Iterator[tuple[str, str, str | None]]:
    """(stage, asset, partition) in flow order. What was imported is left to `persona build`."""
    boards = [
        (source, board) for source in FORUMS for board in project.sources.partitions(source) if board != IMPORT_BOARD
    ]
    yield "Scraping", "sources_config", None
    for source, board in boards:
        yield "Scraping", f"{source}_raw", board
    yield from (("Scraping", asset, None) for asset in ("notes_raw", "capybara_raw"))
    for source, board in boards:
        yield "Cleaning", f"{source}_posts", board
    yield from (("Cleaning", asset, None) for asset in ("notes", "posts"))
    for asset in ("personas_config", "reply_graph", "voice_labels", "dialogues", "capybara_dialogues", "split"):
        yield "Building dialogues", asset, None
    for recipe in recipes:
        for asset in BY_RECIPE:
            yield f"Recipe {recipe}", asset, recipe
    yield "Comparing", "iteration_report", None
    for recipe in recipes:
        yield "Release, as a dry run", "hub_release", recipe


def run(settings: Settings, recipes: tuple[str, ...], instance: dg.DagsterInstance) -> Walk:
    """Walks the whole flow once, and prints what came out."""
    project = ProjectResource.open(settings)
    console = Console(soft_wrap=True)
    walk = Walk(build_defs(settings), instance, console if console.is_terminal else Console(width=WIDTH))
    started, stage = time.monotonic(), ""
    for title, asset, partition in flow(project, recipes):
        if title != stage:
            walk.console.rule(f"[bold]{title}[/bold]", align="left")
            stage = title
        walk.step(asset, partition)
    _print_result(walk, recipes, time.monotonic() - started)
    return walk


def _print_result(walk: Walk, recipes: tuple[str, ...], seconds: float) -> None:
    console = walk.console
    console.rule("[bold]Made[/bold]", align="left")
    corpus = walk.numbers("posts")
    table = Table(show_header=True, header_style="bold")
    for column in (
        "recipe",
        "train rows",
        "test rows",
        "test loss before → after",
        "BERTScore F1 base → adapter",
        "asked voice base → adapter",
        "verdict",
    ):
        table.add_column(column)
    for recipe in recipes:
        mix, report = walk.numbers("mix", recipe), walk.numbers("eval_report", recipe)
        table.add_row(
            recipe,
            _cell(mix.get("train_rows")),
            _cell(mix.get("test_rows")),
            f"{_cell(report.get('loss_base'))} → {_cell(report.get('loss_adapter'))}",
            f"{_cell(report.get('bertscore_f1_base'))} → {_cell(report.get('bertscore_f1_adapter'))}",
            f"{_cell(report.get('fidelity_base'))} → {_cell(report.get('fidelity_adapter'))}",
            _cell(report.get("verdict")),
        )
    console.print(
        f"  posts scraped: {_cell(corpus.get('posts'))} · rows cleaned: {_cell(corpus.get('dagster/row_count'))} · "
        f"usable: {_cell(corpus.get('usable_rows'))} · duplicates: {_cell(corpus.get('duplicates'))}",
        highlight=False,
    )
    console.print(table)
    for recipe in recipes:
        if path := walk.numbers("eval_report", recipe).get("report"):
            console.print(f"  report of {recipe}: {path}", highlight=False)
    if path := walk.numbers("iteration_report").get("report"):
        console.print(f"  versions side by side: {path}", highlight=False)
    if walk.changed:
        console.print(f"  {len(walk.changed)} of {len(walk.ran)} materialised parts changed, in {seconds:.0f} s.")
    else:
        console.print(f"  [bold]Nothing changed[/bold]: nothing was cleaned, mixed or trained again ({seconds:.0f} s).")
    console.print("  Next: make ui (the same run in Dagster), make chat (talk to it), make demo-all (V1 beside V2).")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "–")


def main() -> None:
    settings = Settings()
    recipes = tuple(sys.argv[1:]) or (settings.recipe,)
    known = recipe_names(settings.config_dir, settings.accepted_dir)
    if unknown := set(recipes) - set(known):
        raise SystemExit(f"no recipe named {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    try:
        with dg.DagsterInstance.get() as instance:
            run(settings, recipes, instance)
    except StepFailedError as error:
        raise SystemExit(str(error)) from None
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        raise SystemExit("Stopped. Run it again: it goes on where it was.") from None


if __name__ == "__main__":
    main()
