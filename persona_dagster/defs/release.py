"""The release of a recipe's adapter to the Hugging Face Hub: gated by that recipe's own report, dry unless told."""

import dagster as dg
from pydantic import Field

from persona_dagster.artifacts import Metrics
from persona_dagster.defs.partitions import recipe_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.evaluation.gates import standing


class ReleaseConfig(dg.Config):
    """What is sent where. The default sends nothing, and shows exactly what would be sent."""

    repo_id: str = Field(default="your-name/persona-lora", description="The repository on the Hub: owner/name.")
    publish: bool = Field(
        default=False, description="True sends; needs HF_TOKEN, and every gate of the recipe's report green."
    )
    private: bool = Field(default=True, description="Make the repository private where it is new.")
    exports: list[str] = Field(
        default=[], description='"merged" and "gguf" go along; `persona export` makes them first.'
    )


def build_release_assets(project: ProjectResource) -> list[dg.AssetsDefinition]:
    return [_hub_release(project)]


def _hub_release(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="release",
        description="Adapter, model card and manifest as they go to the Hugging Face Hub. A dry run unless `publish` "
        "is set; never sent while a gate of this recipe's report is red or amber.\n\n"
        "[How the Hub takes models](https://huggingface.co/docs/hub/models-uploading)",
        partitions_def=recipe_partitions(project.recipes),
        deps=["lora_adapter", "eval_report"],
        kinds={"huggingface"},
        owners=["team:ml"],
    )
    def hub_release(context: dg.AssetExecutionContext, config: ReleaseConfig) -> dg.MaterializeResult:
        from persona_dagster.publishing.exports import exports_dir
        from persona_dagster.publishing.hub import plan_release, release

        settings, recipe = project.settings, project.recipe(context.partition_key)
        report = project.reports(recipe.name).newest()
        gates = standing(Metrics.read(report), recipe.evaluation.gates)
        held_back = [
            f"{name} is {gate['verdict']} ({gate['why']})" for name, gate in gates.items() if gate["verdict"] != "green"
        ]
        if config.publish and held_back:
            raise dg.Failure(
                f"{recipe.name} is not released: {', '.join(held_back)}. Look at {report / 'report.html'}.",
                allow_retries=False,
            )
        adapter = project.adapters(recipe.name).newest()
        plan = plan_release(
            recipe,
            project.personas(),
            adapter,
            project.mixes(recipe.name).newest(),
            report,
            config.repo_id,
            settings.releases_dir / recipe.name,
            [exports_dir(settings, recipe.name, adapter.name) / kind for kind in config.exports],
        )
        released = release(plan, dry_run=not config.publish, private=config.private)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(plan.digest),
            metadata={
                "dry_run": released.dry_run,
                "files": len(plan.files),
                "megabytes": round(sum(file.size for file in plan.files) / 1e6, 1),
                "model_card": dg.MetadataValue.path(str(plan.card)),
                "held_back_by": held_back,
                "plan": dg.MetadataValue.md(plan.markdown()),
                **({"url": dg.MetadataValue.url(released.url)} if released.url else {}),
            },
        )

    return hub_release
