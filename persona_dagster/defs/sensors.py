"""Sensors: what changes outside the graph (files, configuration, time), and what to tell a person."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from persona_dagster.commands.setup import problems_by_asset
from persona_dagster.config.recipes import ResolvedRecipe
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.conversation.labels import labels_version
from persona_dagster.defs.configuration import (
    CONFIG_ASSETS,
    FILES_ARE_VALID,
    files_result,
    personas_version,
    sources_version,
)
from persona_dagster.defs.dialogue import RECIPE_VERSION
from persona_dagster.defs.freshness import freshness_sensor
from persona_dagster.defs.jobs import REBUILD, RESCRAPE, Jobs, job_of
from persona_dagster.defs.notifying import notify
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.retraining import Decision, decide
from persona_dagster.defs.staleness import failing_ticks
from persona_dagster.digest import json_digest
from persona_dagster.models.hardware import hardware_of

EVERY_MINUTE = 60
WHOLE_FILES = ("personas_config", "sources_config", "voice_labels")
TRIES = 2  # a training that failed is tried once more, from its checkpoint
BLOCKING = (
    ("posts", "keys_unique"),
    ("posts", "no_personal_data"),
    ("split", "nothing_leaks"),
    ("mix", "mix_is_whole"),
)
ANSWERS = ("SUCCEEDED", "FAILED")  # of a check; a run that never got to it gives none
REASON, TRAINED = "persona/reason", "persona/recipe"


def build_sensors(project: ProjectResource, jobs: Jobs) -> list[dg.SensorDefinition]:
    live = project.settings.profile == "live"
    status = dg.DefaultSensorStatus.STOPPED if live else dg.DefaultSensorStatus.RUNNING
    return [
        _config_changes(project, status, jobs),
        _new_files(project, status, jobs),
        _retrain_policy(project, status, jobs),
        freshness_sensor(project, status),
        _on_failure(),
        _on_failing_ticks(),
    ]


def _config_changes(project: ProjectResource, status: dg.DefaultSensorStatus, jobs: Jobs) -> dg.SensorDefinition:
    launched = {job_of(asset) for asset in ("recipe_config", "evaluation_config", *WHOLE_FILES)}

    @dg.sensor(
        jobs=[job for job in jobs if job.name in launched],
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Notices an edited recipe, persona or site, or a new label, and makes just that one stale. A file "
        "that cannot be used is named, by a red check of its asset too, and goes on as it last was.",
    )
    def config_changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        problems = problems_by_asset(project.settings)
        requests = []
        for asset, partition, digest in _wanted(project, problems["recipe_config"]):
            stored = last_stored(context.instance, asset, partition)
            if digest != _stored_digest(project, asset, partition, stored):
                # With the number of the last event, so that an edit that is taken back is noticed too.
                requests.append(
                    dg.RunRequest(
                        run_key=f"{asset}:{partition}:{digest}:{stored.event}",
                        job_name=job_of(asset),
                        partition_key=partition,
                        asset_selection=[dg.AssetKey(asset)],
                    )
                )
        cursor, told = json_digest(problems), [why for wrong in problems.values() for why in wrong.values()]
        events = []
        if cursor != (context.cursor or json_digest({asset: {} for asset in CONFIG_ASSETS})):
            for why in told:
                notify(why, context.log)
            events = [_files_evaluation(asset, wrong) for asset, wrong in problems.items()]
        skip = dg.SkipReason("; ".join(told)) if told and not requests else None
        return dg.SensorResult(run_requests=requests, asset_events=events, cursor=cursor, skip_reason=skip)

    return config_changes


def _wanted(project: ProjectResource, bad: dict[str, str]) -> Iterator[tuple[str, str | None, str]]:
    """(asset, partition, digest) of all configuration as its files stand. A bad file changes nothing."""
    for name in project.recipes:
        if name not in bad:
            resolved = present_recipe(project, name)
            yield "recipe_config", name, _whole_recipe(resolved)
            yield "evaluation_config", name, json_digest(resolved.recipe.evaluation.model_dump(mode="json"))
    yield "voice_labels", None, labels_version(project.settings.labels_dir)
    yield "personas_config", None, personas_version(project)
    yield "sources_config", None, sources_version(project)


def present_recipe(project: ProjectResource, name: str) -> ResolvedRecipe:
    """The recipe's file as it stands, for the hardware that it was resolved for: this machine's does not count."""
    stored = project.resolved(name)
    return project.resolve(name, stored.hardware if stored else hardware_of(project.settings))


def _whole_recipe(resolved: ResolvedRecipe) -> str:
    """Also over its retrain policy, which decides no mix and no adapter, and so is not in the data version."""
    return json_digest(resolved.recipe.model_dump(mode="json", exclude={"evaluation"}))


def _stored_digest(project: ProjectResource, asset: str, partition: str | None, stored: "Stored") -> str | None:
    if asset != "recipe_config" or partition is None or stored.version is None:
        return stored.version
    resolved = project.resolved(partition)
    return _whole_recipe(resolved) if resolved else None


def _files_evaluation(asset: str, problems: dict[str, str]) -> dg.AssetCheckEvaluation:
    passed, metadata = files_result(problems)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset), check_name=FILES_ARE_VALID, passed=passed, metadata=metadata
    )


@dataclass(frozen=True)
class Stored:
    """The last materialisation of an asset, or of one of its partitions."""

    version: str | None = None
    event: int = 0  # grows with every event of the instance
    metadata: dict[str, object] = field(default_factory=dict)


def last_stored(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> Stored:
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition] if partition is not None else None
        ),
        limit=1,
    ).records
    if not records or not (materialization := records[0].asset_materialization):
        return Stored()
    tags = materialization.tags or {}
    metadata: dict[str, object] = {key: value.value for key, value in materialization.metadata.items()}
    return Stored(tags.get("dagster/data_version"), records[0].storage_id, metadata)


def mixed_by_present_recipe(project: ProjectResource, instance: dg.DagsterInstance, name: str) -> bool:
    """Whether the newest mix was made by the recipe as it is resolved now. (The version of a partitioned upstream in
    Dagster's tags is a hash of versions, so it cannot be compared.)"""
    resolved, mix = project.resolved(name), last_stored(instance, "mix", name)
    return resolved is not None and mix.metadata.get(RECIPE_VERSION) == resolved.version()


def _new_files(project: ProjectResource, status: dg.DefaultSensorStatus, jobs: Jobs) -> dg.SensorDefinition:
    # One anonymous job cannot hold assets of unlike partitions, so the named jobs run, each cut down to one asset.
    @dg.sensor(
        jobs=[job for job in jobs if job.name in (REBUILD, *RESCRAPE.values())],
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Notices files that were put into the notes or imports folder.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        notes, imports = (_fingerprint(f) for f in (project.settings.notes_dir, project.settings.imports_dir))
        old_notes, _, old_imports = (context.cursor or "-").partition(" ")
        requests = []
        if notes != old_notes and (notes != EMPTY or old_notes not in ("-", EMPTY)):
            requests.append(_take_in(REBUILD, "notes_raw", notes))
        if imports not in (old_imports, EMPTY):
            requests += [_take_in(job, f"{source}_raw", imports, IMPORT_BOARD) for source, job in RESCRAPE.items()]
            requests += [_take_in(REBUILD, asset, imports) for asset in ("capybara_raw", "chat_raw")]
        return dg.SensorResult(run_requests=requests, cursor=f"{notes} {imports}")

    return new_files


def _take_in(job: str, asset: str, fingerprint: str, partition: str | None = None) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{asset}:{fingerprint}",
        job_name=job,
        partition_key=partition,
        asset_selection=[dg.AssetKey(asset)],
    )


EMPTY = json_digest([])


def _fingerprint(folder: Path) -> str:
    """What lies in a folder by name, size and time: cheap enough for every minute."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return json_digest(
        [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def _retrain_policy(project: ProjectResource, status: dg.DefaultSensorStatus, jobs: Jobs) -> dg.SensorDefinition:
    @dg.sensor(
        job=next(job for job in jobs if job.name == job_of("lora_adapter")),
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Retrains a recipe that was trained before, when its policy says so: enough of its train rows "
        "changed and its window has passed; at once after a forget or a recipe edit. The first training is yours.",
    )
    def retrain_policy(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests, reasons = [], []
        for name in project.recipes:
            decision = decide(project, name)
            if decision.train and not mixed_by_present_recipe(project, context.instance, name):
                decision = Decision(False, f"{decision.reason}; waits for the mix of the present recipe")
            if decision.train and (red := red_checks(project, context.instance, name)):
                decision = Decision(False, f"{decision.reason}; held by {', '.join(red)}")
            reasons.append(f"{name}: {decision.reason}")
            if decision.train:
                adapter = last_stored(context.instance, "lora_adapter", name)
                key = f"{name}:{decision.key}:{adapter.event}"
                # One run key, one run: a second try after a failure needs a key of its own, and a third is not made.
                tries = context.instance.get_runs(dg.RunsFilter(tags={REASON: key, TRAINED: name}))
                if len(tries) >= TRIES or any(not run.is_finished or run.is_success for run in tries):
                    reasons[-1] += f"; {len(tries)} runs were started for it"
                    continue
                requests.append(
                    dg.RunRequest(
                        run_key=f"{key}:{len(tries)}",
                        partition_key=name,
                        asset_selection=[dg.AssetKey("lora_adapter")],
                        tags={REASON: key, TRAINED: name, "persona/why": decision.reason},
                    )
                )
        skip = None if requests else dg.SkipReason("; ".join(reasons))
        return dg.SensorResult(run_requests=requests, skip_reason=skip)

    return retrain_policy


def red_checks(project: ProjectResource, instance: dg.DagsterInstance, recipe: str) -> list[str]:
    """The blocking checks on a recipe's way to its mix whose newest answer is no."""
    red = []
    for asset, check in BLOCKING:
        key = dg.AssetCheckKey(dg.AssetKey(asset), check)
        told = instance.event_log_storage.get_asset_check_execution_history(key, limit=10 * len(project.recipes))
        answers = (one for one in told if one.partition in (None, recipe) and one.status.value in ANSWERS)
        if (newest := next(answers, None)) and newest.status.value == "FAILED":
            red.append(f"{asset}:{check}")
    return red


def _on_failure() -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of a failed run: in the log, to PERSONA_WEBHOOK_URL (Slack's format) and by e-mail "
        "(PERSONA_SMTP_URL, PERSONA_MAIL_TO), where set.",
    )
    def tell_of_failure(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        partition = run.tags.get("dagster/partition", "")
        notify(f"{run.job_name} {partition} failed (run {run.run_id}): {context.failure_event.message}", context.log)

    return tell_of_failure


def _on_failing_ticks() -> dg.SensorDefinition:
    @dg.sensor(
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5 * EVERY_MINUTE,
        description="Tells of a schedule or a sensor whose tick failed, once until it works again.",
    )
    def tell_of_failing_ticks(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        failing, told = failing_ticks(context.instance), (context.cursor or "").split()
        for name in sorted(set(failing) - set(told)):
            notify(f"{name}: its tick failed: {failing[name]}", context.log)
        return dg.SensorResult(cursor=" ".join(sorted(failing)) or "-")  # an empty one keeps the one before

    return tell_of_failing_ticks
