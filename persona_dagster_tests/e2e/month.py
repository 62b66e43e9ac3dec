"""Drives the graph through simulated days, as the daemon would: schedules, sensors and conditions are evaluated for
real, and what they request is run in this process until nothing is requested."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import orjson

from persona_dagster.crawl.transport import Transport
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.jobs import JOBS
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.sensors import REASON
from persona_dagster.sample.replica import Replica

logging.getLogger("dagster.automation_condition_tester").setLevel(logging.WARNING)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SCHEDULES = ("nightly_ptt", "nightly_dcard", "nightly_threads")
SENSORS = ("config_changes", "new_files", "retrain_policy")
MOST_ROUNDS = 30  # of evaluations in a day; the longest chain of the graph has 10 links


class WarmEngine:
    """The real programs in this process, so that torch is loaded once and not thirty times. `failures` counts down
    the runs of a program that die."""

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}

    def run(self, context: dg.AssetExecutionContext, module: str, job: Path) -> dg.MaterializeResult:
        from persona_dagster.evaluation.evaluate import evaluate
        from persona_dagster.evaluation.generate import generate
        from persona_dagster.evaluation.job_spec import EvaluateJob, GenerateJob
        from persona_dagster.pipes_reporting import Reporter
        from persona_dagster.training.job_spec import TrainJob
        from persona_dagster.training.train import train

        name = module.rpartition(".")[2]
        if self.failures.get(name, 0):
            self.failures[name] -= 1
            raise RuntimeError(f"{name} died, as the test asked")
        text, quiet = job.read_text(encoding="utf-8"), Reporter(None, quiet=True)
        if name == "train":
            folder = train(TrainJob.load(job), quiet)
        elif name == "generate":
            folder = generate(GenerateJob.model_validate_json(text), quiet)
        else:
            folder = evaluate(EvaluateJob.model_validate_json(text), quiet)
        return dg.MaterializeResult(data_version=dg.DataVersion(folder.name))


@dataclass(frozen=True)
class OneReplica(ProjectResource):
    """A project whose sites run as long as the test, with the test's faults, and whose days are simulated."""

    replica: Replica | None = None
    date: list[datetime] = field(default_factory=list)  # one entry: now

    def now(self) -> datetime:
        return self.date[0]

    @contextmanager
    def transport(self) -> Iterator[Transport]:
        assert self.replica
        yield Transport(rewrites=self.replica.rewrites, chromium=self.settings.chromium)


@dataclass
class Month:
    """The days, and what ran on each: `asset/partition`, with `!` in front where it failed."""

    project: OneReplica
    instance: dg.DagsterInstance
    engine: WarmEngine
    defs: dg.Definitions = field(init=False)
    ran: list[str] = field(default_factory=list)
    sensor_cursors: dict[str, str | None] = field(default_factory=dict)
    table: list[tuple[str, list[str]]] = field(default_factory=list)  # what each day brought, and what ran
    reasons: str = ""  # why the retrain policy started nothing, when it was asked last

    def __post_init__(self) -> None:
        self.reload()

    def reload(self) -> None:
        """What a restarted code server does."""
        self.defs = build_defs(project=self.project, engine=self.engine)
        self.repository = self.defs.get_repository_def()
        self.job = self.defs.resolve_implicit_global_asset_job_def()

    def day(
        self, brings: str, *, scrape: bool = True, site_days: int = 0, click: tuple[str, str] | None = None
    ) -> list[str]:
        """One day: the sites move on by `site_days`, the night's schedules fire or a person clicks, and changes are
        carried through."""
        self.project.date[0] += timedelta(days=1)
        self.table.append((brings, []))
        if site_days:
            assert self.project.replica
            self.project.replica.clock.advance(site_days)
        self.ran = []
        if scrape:
            for name in SCHEDULES:
                self._start(name, self._tick(name))
        if click:
            self.materialize(*click)
        return self.settle()

    def settle(self) -> list[str]:
        """Evaluates and runs until two rounds request nothing; what ran since the day began."""
        quiet = 0  # rounds in a row: one may hold something back for the next
        for _ in range(MOST_ROUNDS):
            before = len(self.ran)
            for name in SENSORS:
                self._start(name, self._sense(name))
            self._evaluate()
            quiet = quiet + 1 if len(self.ran) == before else 0
            if quiet == 2:
                self.table[-1] = (self.table[-1][0], list(self.ran))
                return self.ran
        raise AssertionError(f"still at work after {MOST_ROUNDS} rounds: {self.ran[-20:]}")

    def markdown(self) -> str:
        """The table of what ran each day, for a person to judge."""
        rows = [f"| {n} | {brings} | {_shortened(ran)} |" for n, (brings, ran) in enumerate(self.table, 1)]
        return "\n".join(["| day | what it brought | what ran |", "|---|---|---|", *rows])

    def materialize(self, asset: str, partition: str | None = None) -> None:
        """A person's click."""
        self._run([dg.AssetKey(asset)], partition, {})

    def launch(self, job: str, partition: str | None = None) -> None:
        """A person launches a named job, whole."""
        self._run([dg.AssetKey(asset) for asset in JOBS[job][1]], partition, {}, job)

    def _tick(self, name: str) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=self.project.now().astimezone(ZoneInfo("Asia/Taipei")),
            repository_def=self.repository,
        )
        return list(self.repository.get_schedule_def(name).evaluate_tick(context).run_requests or [])

    def _sense(self, name: str) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            self.instance, cursor=self.sensor_cursors.get(name), repository_def=self.repository
        )
        tick = self.repository.get_sensor_def(name).evaluate_tick(context)
        self.sensor_cursors[name] = tick.cursor
        if name == "retrain_policy":
            self.reasons = tick.skip_message or ""
        return list(tick.run_requests or [])

    def _start(self, origin: str, requests: list[dg.RunRequest]) -> None:
        """One run a run key, as the daemon keeps it."""
        for request in requests:
            tags = {**request.tags, "dagster/run_key": f"{origin}:{request.run_key}"}
            if self.instance.get_runs_count(dg.RunsFilter(tags={"dagster/run_key": tags["dagster/run_key"]})):
                continue
            self._run(list(request.asset_selection or []), request.partition_key, tags)

    def _evaluate(self) -> None:
        for request in self._sense("automation"):
            self._run(list(request.asset_selection or []), request.partition_key, {}, request.job_name)

    def _run(
        self, keys: list[dg.AssetKey], partition: str | None, tags: dict[str, str], job: str | None = None
    ) -> None:
        found = self.repository.get_job(job) if job else self.job
        result = found.execute_in_process(
            run_config=QUIET,
            instance=self.instance,
            partition_key=partition,
            asset_selection=keys,
            raise_on_error=False,
            tags=tags,
        )
        for event in result.all_events:
            if event.is_step_failure and (error := event.step_failure_data.error):
                print(event.step_key, (error.cause or error).message.strip())  # shown where the table is wrong
        made = {event.asset_key for event in result.get_asset_materialization_events()}
        started = {event.step_key for event in result.all_events if event.is_step_start}
        for key in keys:
            name = key.to_user_string()
            if name not in started:
                continue  # something before it in the same run failed
            self.ran.append(("" if key in made else "!") + name + (f"/{partition}" if partition else ""))
            if key in made and name == "lora_adapter":
                self._stamp(str(partition))

    def _stamp(self, recipe: str) -> None:
        """The trainer wrote the wall clock's date; the policy weighs it against the simulated day."""
        folder = self.project.settings.adapters_dir / recipe
        card = folder / (folder / "latest").read_text(encoding="utf-8").strip() / "run_card.json"
        content = orjson.loads(card.read_bytes())
        content["finished_at"] = self.project.now().isoformat()
        card.write_bytes(orjson.dumps(content))


def _shortened(ran: list[str]) -> str:
    """`mix/a`, `mix/b` as `mix (a, b)`; what failed stays marked."""
    by_asset: dict[str, list[str]] = {}
    for name in ran:
        asset, _, partition = name.partition("/")
        by_asset.setdefault(asset, []).append(partition)
    words = [
        asset + (f" ({', '.join(p for p in parts)})" if any(parts) else "" if len(parts) == 1 else f" ×{len(parts)}")
        for asset, parts in by_asset.items()
    ]
    return ", ".join(words) or "nothing"


def start(settings, replica: Replica, instance: dg.DagsterInstance) -> Month:  # type: ignore[no-untyped-def]
    opened = ProjectResource.open(settings)
    project = OneReplica(
        opened.settings, opened.sources, opened.recipes, replica, [datetime(2026, 10, 1, 20, tzinfo=UTC)]
    )
    month = Month(project, instance, WarmEngine())
    month._evaluate()  # as the daemon does before anything is there
    return month


def below(ran: list[str]) -> list[str]:
    """What ran beside the scrapes."""
    return [name for name in ran if "_raw" not in name]


__all__ = ["REASON", "Month", "WarmEngine", "below", "start"]
