"""Sensors: what changes outside the graph (files, configuration, time), and what to tell a person."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from persona_dagster.config.recipes import RECIPES
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.jobs import REBUILD, RESCRAPE, Jobs
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.defs.retraining import Decision, decide
from persona_dagster.digest import json_digest

EVERY_MINUTE = 60
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
        _config_changes(project, status),
        _new_files(project, status, jobs),
        _retrain_policy(project, status),
        _on_failure(),
    ]


def _config_changes(project: ProjectResource, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    assets = dg.AssetSelection.assets("recipe_config", "evaluation_config", "personas_config")

    @dg.sensor(
        target=assets,
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Notices an edited recipe or persona, and makes just that one stale.",
    )
    def config_changes(context: dg.SensorEvaluationContext) -> list[dg.RunRequest]:
        wanted: list[tuple[str, str | None, str]] = []
        for name in RECIPES:
            wanted.append(("recipe_config", name, recipe_version(project, name)))
            wanted.append(("evaluation_config", name, json_digest(project.evaluation_slice(name))))
        wanted.append(("personas_config", None, json_digest(project.personas().model_dump(mode="json"))))
        requests = []
        for asset, partition, digest in wanted:
            stored = last_stored(context.instance, asset, partition)
            if digest != stored.version:
                # With the number of the last event, so that an edit that is taken back is noticed too.
                requests.append(
                    dg.RunRequest(
                        run_key=f"{asset}:{partition}:{digest}:{stored.event}",
                        partition_key=partition,
                        asset_selection=[dg.AssetKey(asset)],
                    )
                )
        return requests

    return config_changes


def recipe_version(project: ProjectResource, name: str) -> str:
    return json_digest(project.recipe_slice(name))


@dataclass(frozen=True)
class Stored:
    """The last materialisation of an asset, or of one of its partitions."""

    version: str | None = None
    event: int = 0  # grows with every event of the instance


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
    return Stored(tags.get("dagster/data_version"), records[0].storage_id)


def mixed_by_present_recipe(project: ProjectResource, instance: dg.DagsterInstance, name: str) -> bool:
    """Whether the mix was made after the recipe as it stands became known. (The version of a partitioned upstream in
    Dagster's tags is a hash of versions, so it cannot be compared.)"""
    config = last_stored(instance, "recipe_config", name)
    return config.version == recipe_version(project, name) and config.event < last_stored(instance, "mix", name).event


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
            requests.append(_take_in(REBUILD, "capybara_raw", imports))
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


def _retrain_policy(project: ProjectResource, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    @dg.sensor(
        target=dg.AssetSelection.assets("lora_adapter"),
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Retrains a recipe that was trained before, when its policy says so: enough of its train rows "
        "changed and its window has passed; at once after a forget or a recipe edit. The first training is yours.",
    )
    def retrain_policy(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        requests, reasons = [], []
        for name in RECIPES:
            decision = decide(project, name)
            if decision.train and not mixed_by_present_recipe(project, context.instance, name):
                decision = Decision(False, f"{decision.reason}; waits for the mix of the present recipe")
            if decision.train and (red := red_checks(context.instance, name)):
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


def red_checks(instance: dg.DagsterInstance, recipe: str) -> list[str]:
    """The blocking checks on a recipe's way to its mix whose newest answer is no."""
    red = []
    for asset, check in BLOCKING:
        key = dg.AssetCheckKey(dg.AssetKey(asset), check)
        told = instance.event_log_storage.get_asset_check_execution_history(key, limit=10 * len(RECIPES))
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
        from persona_dagster.defs.notifying import notify

        run = context.dagster_run
        partition = run.tags.get("dagster/partition", "")
        notify(f"{run.job_name} {partition} failed (run {run.run_id}): {context.failure_event.message}", context.log)

    return tell_of_failure
