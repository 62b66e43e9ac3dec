"""Model assets, a partition a recipe: the adapter, what it says, and what that is worth."""

from pathlib import Path

import dagster as dg
import polars as pl

from persona_dagster.artifacts import Job, MixManifest
from persona_dagster.defs.automation import only_if_data_changed
from persona_dagster.defs.engines import ProgramRunner
from persona_dagster.defs.partitions import recipe_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.evaluation.job_spec import EVALUATION_VERSION, EvaluateJob, GenerateJob, SeedsJob
from persona_dagster.evaluation.judge_training_data import write_judge_rows
from persona_dagster.evaluation.retrain_across_seeds import FILE as SEEDS_FILE
from persona_dagster.training.job_spec import TRAINING_VERSION, TrainJob


def build_model_assets(project: ProjectResource, engine: ProgramRunner) -> list[dg.AssetsDefinition]:
    return [
        _lora_adapter(project, engine),
        _generations(project, engine),
        _eval_report(project, engine),
        _iteration_report(project),
    ]


def save_job(project: ProjectResource, name: str, job: Job) -> Path:
    """A program's job file. It stays, so that the program can be run again by hand, without Dagster."""
    return job.save(project.settings.home / "jobs" / f"{name}.json")


def _lora_adapter(project: ProjectResource, engine: ProgramRunner) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="model",
        description="The LoRA adapter of a recipe, trained in its own process. Content-addressed: the same mix and "
        "recipe return the adapter that is there. A cancelled run goes on from its last checkpoint.",
        partitions_def=recipe_partitions(project.recipes),
        deps=["mix", "recipe_config"],
        kinds={"pytorch", "huggingface"},
        owners=["team:ml"],
        pool="gpu",
        code_version=TRAINING_VERSION,
    )
    def lora_adapter(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        settings, recipe = project.settings, project.recipe(context.partition_key)
        mix = project.mixes(recipe.name).newest()
        if lacks := MixManifest.read(mix).held_back:
            raise dg.Failure(
                f"the mix of {recipe.name} has too little to train on: {' | '.join(lacks)}. Collect more, or give the "
                "reason why it is enough in the recipe's mix.accept_shortfall",
                allow_retries=False,
            )
        job = TrainJob(
            recipe=recipe,
            mix_dir=mix,
            out_dir=settings.adapters_dir / recipe.name,
            models_dir=settings.models_dir,
            checkpoints_dir=settings.home / "checkpoints" / recipe.name,
        )
        return engine.run(context, "persona_dagster.training.train", save_job(project, f"train-{recipe.name}", job))

    return lora_adapter


def _generations(project: ProjectResource, engine: ProgramRunner) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="evaluation",
        description="Answers of the base model and of the adapter, side by side, to the test split and the probes.",
        partitions_def=recipe_partitions(project.recipes),
        deps=["lora_adapter", "mix", "evaluation_config"],
        kinds={"pytorch", "parquet"},
        owners=["team:ml"],
        pool="gpu",
        code_version=EVALUATION_VERSION,
        automation_condition=only_if_data_changed(follow=("lora_adapter", "evaluation_config")),
    )
    def generations(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        settings, recipe = project.settings, project.recipe(context.partition_key)
        job = GenerateJob(
            recipe=recipe,
            personas=project.personas(),
            mix_dir=project.mixes(recipe.name).newest(),
            adapter_dir=project.adapters(recipe.name).newest(),
            models_dir=settings.models_dir,
            out_dir=settings.generations_dir / recipe.name,
        )
        path = save_job(project, f"generate-{recipe.name}", job)
        return engine.run(context, "persona_dagster.evaluation.generate", path)

    return generations


def _eval_report(project: ProjectResource, engine: ProgramRunner) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="evaluation",
        description="Whether the model has the three voices and knows when to use which, what it memorised and what it "
        "lost, against its own base model, with intervals: one HTML page and metrics.json.",
        partitions_def=recipe_partitions(project.recipes),
        deps=["generations", "lora_adapter", "mix", "evaluation_config"],
        kinds={"scikitlearn", "html"},
        owners=["team:ml"],
        pool="gpu",
        code_version=EVALUATION_VERSION,
        automation_condition=only_if_data_changed(follow=("generations", "evaluation_config")),
    )
    def eval_report(
        context: dg.AssetExecutionContext, dialogues: pl.DataFrame, split: pl.DataFrame
    ) -> dg.MaterializeResult:
        settings, recipe = project.settings, project.recipe(context.partition_key)
        shared = {
            "recipe": recipe,
            "personas": project.personas(),
            "mix_dir": project.mixes(recipe.name).newest(),
            "models_dir": settings.models_dir,
            "judge_rows": _judge_rows(project, dialogues, split),
            "votes": _votes(project, recipe.name),
        }
        seeds = None
        if recipe.evaluation.seeds > 1:
            again = SeedsJob(**shared, out_dir=settings.home / "seeds" / recipe.name)
            path = save_job(project, f"seeds-{recipe.name}", again)
            engine.run(context, "persona_dagster.evaluation.retrain_across_seeds", path)
            seeds = again.out_dir / SEEDS_FILE
        job = EvaluateJob(
            **shared,
            adapter_dir=project.adapters(recipe.name).newest(),
            generations_dir=project.generations(recipe.name).newest(),
            out_dir=settings.reports_dir / recipe.name,
            seeds=seeds,
        )
        path = save_job(project, f"evaluate-{recipe.name}", job)
        result = engine.run(context, "persona_dagster.evaluation.evaluate", path)
        page = project.reports(recipe.name).newest() / "report.html"
        return result._replace(metadata={**(result.metadata or {}), "open": project.link(page)})

    return eval_report


def _judge_rows(project: ProjectResource, dialogues: pl.DataFrame, split: pl.DataFrame) -> Path | None:
    """What was written for a voice: in the sample by its authors. Without any (live, and tiny, where time counts) the
    recipe's train rows teach the judge, and its gate stays amber."""
    from persona_dagster.sample.voice_examples import written_answers

    written = written_answers() if project.settings.profile == "sample" else []
    return write_judge_rows(written, dialogues, split, project.settings.home / "judge" / "rows.jsonl")


def _votes(project: ProjectResource, recipe: str) -> Path | None:
    path = project.settings.home / "votes" / f"{recipe}.jsonl"
    return path if path.is_file() else None


def _iteration_report(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="evaluation",
        description="Version 1.0 beside Version 2.0, and any other recipe that was evaluated: epochs, data, loss, "
        "collapse, peak memory, and samples of both, as measured.",
        deps=["eval_report"],
        kinds={"html"},
        owners=["team:ml"],
        code_version=EVALUATION_VERSION,
        automation_condition=only_if_data_changed(join=True),
    )
    def iteration_report() -> dg.MaterializeResult:
        from persona_dagster.evaluation.iteration_report import write_iteration_report

        reports = project.settings.reports_dir
        folders = {name: found for name in project.recipes if (found := project.reports(name).latest())}
        written = write_iteration_report(folders, reports / "iteration")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.digest),
            metadata={
                "recipes_compared": sorted(folders),
                "recipes_absent": sorted(set(project.recipes) - set(folders)),
                "report": dg.MetadataValue.path(str(written.path)),
                "open": project.link(written.path),
                "table": dg.MetadataValue.md(written.markdown),
            },
        )

    return iteration_report
