"""Configuration as assets: each holds the digest of its slice, and keeps the last good state of its files.

A bad file fails no run: its item goes on as it last was. The check `files_are_valid` of its asset is red and names
file, line and key; so do the sensor `config_changes` and `persona doctor`.
"""

import dagster as dg

from persona_dagster.commands.setup import problems_by_asset
from persona_dagster.config.loading import ConfigError, accept, accept_single
from persona_dagster.config.recipes import ResolvedEvaluation, ResolvedRecipe
from persona_dagster.config.sources import load_sources
from persona_dagster.conversation.safety import load_unsafe
from persona_dagster.defs.partitions import recipe_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.digest import json_digest
from persona_dagster.models.hardware import hardware_of
from persona_dagster.records import FORUMS

CONFIG_ASSETS = ("recipe_config", "personas_config", "sources_config")
FILES_ARE_VALID = "files_are_valid"


def build_config_assets(project: ProjectResource) -> list[dg.AssetsDefinition]:
    return [_sources_config(project), _personas_config(project), _recipe_config(project), _evaluation_config(project)]


def build_config_checks(project: ProjectResource) -> list[dg.AssetChecksDefinition]:
    return [_files_are_valid(project, asset) for asset in CONFIG_ASSETS]


def sources_version(project: ProjectResource) -> str:
    settings = project.settings
    sources = load_sources(settings.config_dir, settings.profile, settings.accepted_dir)
    return json_digest([sources.model_dump(mode="json"), project.split().model_dump(mode="json")])


def personas_version(project: ProjectResource) -> str:
    unsafe = load_unsafe(project.settings.config_dir, project.settings.accepted_dir)
    return json_digest([project.personas().model_dump(mode="json"), unsafe])


def _sources_config(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="config",
        description="The sites, their boards and pace (sources/*.yaml), how dialogues part (split.yaml), the cluster's "
        "options (cluster.yaml).",
        kinds={"yaml"},
        owners=["team:data"],
    )
    def sources_config(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        problems = _warn(project, "sources_config", context)
        _accept(project, "sources", [name for name in FORUMS if name not in problems])
        _accept_singles(project, ["split", "cluster"], problems)
        boards: dict[str, list[str]] = {source: list(project.sources.site(source).boards) for source in FORUMS}
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sources_version(project)), metadata={"boards": dg.MetadataValue.json(boards)}
        )

    return sources_config


def _personas_config(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="config",
        description="personas/*.yaml and unsafe.yaml as an input of the graph: editing one rebuilds the dialogues, and "
        "nothing before.",
        kinds={"yaml"},
        owners=["team:ml"],
    )
    def personas_config(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        problems, personas = _warn(project, "personas_config", context), project.personas().personas
        _accept(project, "personas", [name for name in personas if name not in problems])
        _accept_singles(project, ["unsafe"], problems)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(personas_version(project)),
            metadata={"personas": [persona.tag for persona in personas.values()]},
        )

    return personas_config


def _recipe_config(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="config",
        description="A recipe resolved: what mix and adapter are made by, with the overlays of hardware and profile "
        "laid on. Whatever works on the recipe, on any machine, reads what is stored here. Editing a recipe makes "
        f"that one partition stale. Recipes: {', '.join(project.recipes)}.",
        partitions_def=recipe_partitions(project.recipes),
        kinds={"yaml"},
        owners=["team:ml"],
    )
    def recipe_config(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        name = context.partition_key
        resolved = _or_failure(project, name, None)
        problems, base = _warn(project, "recipe_config", context, name), resolved.recipe.base.entry.name
        _accept(project, "recipes", [name] if name not in problems else [])
        _accept(project, "bases", [base] if f"base {base}" not in problems else [])
        resolved.write(project.settings.resolved_dir / name)
        recipe = resolved.recipe
        return dg.MaterializeResult(
            data_version=dg.DataVersion(resolved.version()),
            metadata={
                "title": recipe.title,
                "hardware": resolved.hardware,
                "base_model": recipe.base.model,
                "backend": recipe.backend,
                "epochs": recipe.training.epochs,
                "recipe": dg.MetadataValue.json(recipe.model_dump(mode="json")),
            },
        )

    return recipe_config


def _evaluation_config(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="config",
        description="How a recipe's adapter is judged: rows, probes, gates. Editing it evaluates again, and trains "
        "nothing.",
        partitions_def=recipe_partitions(project.recipes),
        kinds={"yaml"},
        owners=["team:ml"],
    )
    def evaluation_config(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        name, stored = context.partition_key, project.resolved(context.partition_key)
        resolved = _or_failure(project, name, stored.hardware if stored else None)
        if name not in _warn(project, "recipe_config", context, name):
            _accept(project, "recipes", [name])
        judged = ResolvedEvaluation(evaluation=resolved.recipe.evaluation)
        judged.write(project.settings.resolved_dir / name)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(judged.version()),
            metadata={
                "rows": judged.evaluation.max_rows,
                "evaluation": dg.MetadataValue.json(judged.evaluation.model_dump(mode="json")),
            },
        )

    return evaluation_config


def _or_failure(project: ProjectResource, name: str, hardware: str | None) -> ResolvedRecipe:
    try:
        return project.resolve(name, hardware or hardware_of(project.settings))
    except ConfigError as error:  # never good, so there is no state to go on with
        raise dg.Failure(str(error), allow_retries=False) from error


def _accept(project: ProjectResource, kind: str, names: list[str]) -> None:
    for name in names:
        accept(kind, name, project.settings.config_dir, project.settings.accepted_dir)


def _accept_singles(project: ProjectResource, names: list[str], problems: dict[str, str]) -> None:
    for name in names:
        if name not in problems:
            accept_single(f"{name}.yaml", project.settings.config_dir, project.settings.accepted_dir)


def _warn(
    project: ProjectResource, asset: str, context: dg.AssetExecutionContext, only: str | None = None
) -> dict[str, str]:
    problems = problems_by_asset(project.settings)[asset]
    for name, why in problems.items():
        if only in (None, name):
            context.log.warning("%s goes on as it last was: %s", name, why)
    return problems


def files_result(problems: dict[str, str]) -> tuple[bool, dict[str, dg.MetadataValue]]:
    """Whether all files of a config asset are valid, and what is wrong with each item that is not."""
    return not problems, {name: dg.MetadataValue.text(why) for name, why in problems.items()}


def _files_are_valid(project: ProjectResource, asset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=FILES_ARE_VALID,
        description="Every file of this configuration can be read. A bad one holds up nothing but its own changes.",
    )
    def files_are_valid() -> dg.AssetCheckResult:
        passed, metadata = files_result(problems_by_asset(project.settings)[asset])
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.ERROR, metadata=metadata)

    return files_are_valid
