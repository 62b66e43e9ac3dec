"""Sensors: what changes outside the graph (files, configuration, time), and what to tell a person."""

from pathlib import Path

import dagster as dg

from persona_dagster.config.recipes import RECIPES
from persona_dagster.config.sources import IMPORT_BOARD
from persona_dagster.defs.resources import House
from persona_dagster.digest import json_digest
from persona_dagster.records import FORUMS

EVERY_MINUTE = 60


def build_sensors(house: House) -> list[dg.SensorDefinition]:
    live = house.settings.profile == "live"
    status = dg.DefaultSensorStatus.STOPPED if live else dg.DefaultSensorStatus.RUNNING
    return [_config_changes(house, status), _new_files(house, status), _retrain_policy(house, status), _on_failure()]


def _config_changes(house: House, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    assets = dg.AssetSelection.assets("recipe_config", "personas_config")

    @dg.sensor(
        target=assets,
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Notices an edited recipe or persona, and makes just that one stale.",
    )
    def config_changes(context: dg.SensorEvaluationContext) -> list[dg.RunRequest]:
        wanted: dict[str, str] = {name: json_digest(house.recipe(name).model_dump(mode="json")) for name in RECIPES}
        requests = [
            dg.RunRequest(
                run_key=f"{name}:{digest}", partition_key=name, asset_selection=[dg.AssetKey("recipe_config")]
            )
            for name, digest in wanted.items()
            if digest != stored_version(context.instance, "recipe_config", name)
        ]
        personas = json_digest(house.personas().model_dump(mode="json"))
        if personas != stored_version(context.instance, "personas_config"):
            key = dg.AssetKey("personas_config")
            requests.append(dg.RunRequest(run_key=f"personas:{personas}", asset_selection=[key]))
        return requests

    return config_changes


def stored_version(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> str | None:
    """The data version of an asset's (or a partition's) last materialisation."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(
            asset_key=dg.AssetKey(asset), asset_partitions=[partition] if partition is not None else None
        ),
        limit=1,
    ).records
    if not records or not (materialization := records[0].asset_materialization):
        return None
    return (materialization.tags or {}).get("dagster/data_version")


def _new_files(house: House, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    raw = [f"{source}_raw" for source in FORUMS]

    @dg.sensor(
        target=dg.AssetSelection.assets("notes_raw", "capybara_raw", *raw),
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Notices files that were put into the notes or imports folder.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        notes, imports = (_fingerprint(f) for f in (house.settings.notes_dir, house.settings.imports_dir))
        old_notes, _, old_imports = (context.cursor or "-").partition(" ")
        requests = []
        if notes != old_notes and (notes != EMPTY or old_notes not in ("-", EMPTY)):
            requests.append(dg.RunRequest(run_key=f"notes:{notes}", asset_selection=[dg.AssetKey("notes_raw")]))
        if imports not in (old_imports, EMPTY):
            requests += [
                dg.RunRequest(
                    run_key=f"{name}:{imports}", partition_key=IMPORT_BOARD, asset_selection=[dg.AssetKey(name)]
                )
                for name in raw
            ]
            requests.append(dg.RunRequest(run_key=f"capybara:{imports}", asset_selection=[dg.AssetKey("capybara_raw")]))
        return dg.SensorResult(run_requests=requests, cursor=f"{notes} {imports}")

    return new_files


EMPTY = json_digest([])


def _fingerprint(folder: Path) -> str:
    """What lies in a folder by name, size and time: cheap enough for every minute."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return json_digest(
        [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    )


def _retrain_policy(house: House, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    @dg.sensor(
        target=dg.AssetSelection.assets("lora_adapter"),
        default_status=status,
        minimum_interval_seconds=EVERY_MINUTE,
        description="Retrains a recipe that was trained before, when its policy says so: enough of its train rows "
        "changed and its window has passed; at once after a forget or a recipe edit. The first training is yours.",
    )
    def retrain_policy(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from persona_dagster.defs.retraining import decide

        requests, reasons = [], []
        for name in RECIPES:
            decision = decide(house, name)
            reasons.append(f"{name}: {decision.reason}")
            if decision.train:
                requests.append(
                    dg.RunRequest(
                        run_key=f"{name}:{decision.key}",
                        partition_key=name,
                        asset_selection=[dg.AssetKey("lora_adapter")],
                        tags={"persona/reason": decision.reason[:200]},
                    )
                )
        skip = None if requests else dg.SkipReason("; ".join(reasons))
        return dg.SensorResult(run_requests=requests, skip_reason=skip)

    return retrain_policy


def _on_failure() -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of a failed run: in the log, and to PERSONA_WEBHOOK_URL (Slack's format) where one is set.",
    )
    def tell_of_failure(context: dg.RunFailureSensorContext) -> None:
        from persona_dagster.defs.notifying import notify

        run = context.dagster_run
        partition = run.tags.get("dagster/partition", "")
        notify(f"{run.job_name} {partition} failed (run {run.run_id}): {context.failure_event.message}", context.log)

    return tell_of_failure
