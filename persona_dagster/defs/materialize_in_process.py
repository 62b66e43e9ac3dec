"""One walk over the graph in this process, in flow order, on the instance that the UI shows: `persona demo` and
`persona build`. What Dagster calls fresh is left alone."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import dagster as dg
from rich.console import Console

from persona_dagster.commands.console import is_ours, told
from persona_dagster.commands.progress_display import Display, Step, Times, chatter_in
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.staleness import freshness
from persona_dagster.records import FORUMS
from persona_dagster.settings import Settings

WIDTH = 118  # of what is printed where the terminal does not say
RAW = (*(f"{source}_raw" for source in FORUMS), "chat_raw", "notes_raw", "capybara_raw")
CONFIGS = ("sources_config", "personas_config", "voice_labels", "recipe_config", "evaluation_config")
ALWAYS = {"imported_files", *RAW, *CONFIGS}  # outside Dagster's sight: a site, a file
STAGES = {
    "Collecting": ("sources_config", "imported_files", *RAW),
    "Cleaning": (*(f"{source}_posts" for source in (*FORUMS, "chat")), "notes", "posts", "row_ledger"),
    "Finding conversations": (
        *("personas_config", "voice_labels", "reply_graph", "dialogues", "capybara_dialogues", "split"),
    ),
    "Mixing": ("recipe_config", "evaluation_config", "mix"),
    "Training": ("lora_adapter",),
    "Answering": ("generations",),
    "Judging": ("eval_report", "iteration_report"),
    "Release, a dry run": ("hub_release",),
}
STAGE_OF = {asset: stage for stage, assets in STAGES.items() for asset in assets}
DISK_IS_FULL = ("No space left on device", "disk is full", "Disk quota exceeded")
FULL_DISK = "The disk is full: free some space, or move PERSONA_HOME to a larger disk, and run it again."
INTERRUPTIONS = {"KeyboardInterrupt", "DagsterExecutionInterruptedError"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # failures are told in a line of our own
LAST_LINES = 12  # of a program's output, where it failed

Todo = Sequence[tuple[str, str | None]]  # assets and partitions, in flow order


class StepFailedError(RuntimeError):
    """An asset of the walk failed; the message is its own error, which names the cure."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} failed: {why}\nWhat was made before it is kept. `persona ui` shows the whole log.")


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
    display: Display
    ran: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    again: bool = False  # whether also what is fresh is materialised
    times: Times | None = None

    def over(self, todo: Todo, title: str) -> None:
        """Materialises all of `todo` that is not fresh, with the plan above and the time that is left."""
        assert self.times is not None
        try:
            with self.display.running(self._plan(todo), title):
                for (asset, partition), (following, _) in zip(todo, [*todo[1:], todo[-1]], strict=True):
                    news = len(self.changed)
                    self.step(asset, partition)
                    if len(self.changed) > news and STAGE_OF[asset] != STAGE_OF[following]:
                        self.display.plan(self._plan(todo))
        finally:
            self.times.save()

    def _plan(self, todo: Todo) -> list[Step]:
        assert self.times is not None
        fresh = freshness(self.defs.resolve_asset_graph(), self.instance)
        steps = []
        for asset, partition in todo:
            stands = not self.again and fresh(asset, partition)
            seconds = self.times.expected(_name(asset, partition), stands=stands)
            steps.append(
                Step(_name(asset, partition), STAGE_OF[asset], 0.0 if stands and asset not in ALWAYS else seconds)
            )
        return steps

    def step(self, asset: str, partition: str | None = None) -> None:
        """Materialises one asset partition unless it is fresh, and tells of it either way."""
        name = _name(asset, partition)
        fresh = freshness(self.defs.resolve_asset_graph(), self.instance)
        if not self.again and asset not in ALWAYS and fresh(asset, partition):
            self.display.stands(name)
            return
        before = self.version(asset, partition)
        self.display.begin(name)
        result = self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
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
        seconds = self.display.end(self.summary(asset, partition), changed=changed)
        if self.times is not None:
            (self.times.made if changed else self.times.unchanged)[name] = round(seconds, 2)

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


def open_walk(settings: Settings, instance: dg.DagsterInstance, display: Display, kind: str, again: bool) -> Walk:
    """A walk of one `kind` (demo, build), whose times this home keeps."""
    times = Times(settings.home / "cache" / f"times-{kind}.json")
    return Walk(build_defs(settings), instance, display, again=again, times=times)


def terminal(file: TextIO | None = None) -> Display:
    """On the terminal, or in lines of a fixed width where there is none."""
    console = Console(file=file, soft_wrap=True)
    return Display(console if console.is_terminal else Console(file=file, width=WIDTH))


def run_program(name: str, settings: Settings, work: Callable[[dg.DagsterInstance, Display], object]) -> None:
    """Runs `work` on this home's instance, with all chatter in a log, and ends with what went wrong in a sentence."""
    if "DAGSTER_HOME" not in os.environ:
        os.environ["DAGSTER_HOME"] = str(settings.prepare_instance().resolve())
    log = settings.home / "cache" / f"{name}.log"
    try:
        with chatter_in(log) as out, dg.DagsterInstance.get() as instance:
            work(instance, terminal(out))
    except StepFailedError as error:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        print("\n".join(f"  | {line}" for line in lines if line.strip()), file=sys.stderr)
        raise SystemExit(f"{error}\nWhat its programs printed: {log}") from None
    except (ValueError, RuntimeError) as error:
        if not is_ours(error):
            raise
        raise SystemExit(told(error)) from None
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        raise SystemExit("Stopped. What was made is kept; run it again, and it goes on where it was.") from None


def _name(asset: str, partition: str | None) -> str:
    return f"{asset} · {partition}" if partition else asset


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "–")
