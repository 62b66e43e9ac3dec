"""`persona evaluate` and `persona judge`: any answers through the gates, and people's votes, without Dagster."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from persona_dagster.artifacts import Metrics, RunCard, Versions, write_json
from persona_dagster.config.personas import Personas
from persona_dagster.digest import file_digest
from persona_dagster.models.hardware import resolved_recipe
from persona_dagster.settings import Settings

app = typer.Typer()
KEYS = ("model", "suite", "prompt_id")


@app.command()
def evaluate(
    recipe: Annotated[str, typer.Argument(help="whose gates, mix and test rows")],
    generations: Annotated[
        Path | None, typer.Option(help="Parquet of the generations' columns; rows it lacks come from the recipe's own")
    ] = None,
    out: Annotated[Path, typer.Option(help="where report.html and metrics.json go")] = Path("evaluation"),
) -> None:
    """Judges a file of answers by the gates of RECIPE, without Dagster; by default the recipe's own answers."""
    from persona_dagster.evaluation.evaluate import evaluate as judge
    from persona_dagster.evaluation.job_spec import EvaluateJob
    from persona_dagster.pipes_reporting import open_reporter

    settings = Settings()
    with tempfile.TemporaryDirectory() as made, open_reporter() as reporter:
        folder = handed_in(recipe, generations, settings, Path(made))
        # Figures of a training stand in the report of answers that this training gave, and in no other.
        adapter = None if generations else Versions(settings.adapters_dir / recipe, RunCard.FILE).latest()
        job = EvaluateJob(
            recipe=resolved_recipe(recipe, settings),
            personas=_personas(settings),
            mix_dir=Versions(settings.mix_dir / recipe, "manifest.json").newest(),
            models_dir=settings.models_dir,
            generations_dir=folder,
            out_dir=out,
            adapter_dir=adapter,
            judge_rows=_existing(settings.home / "judge" / "rows.jsonl"),
            votes=_existing(settings.home / "votes" / f"{recipe}.jsonl"),
        )
        written = judge(job, reporter)
        metrics = Metrics.read(written)
    typer.echo(f"{metrics.verdict}: {metrics.reason}")
    typer.echo(str(written / "report.html"))


def handed_in(recipe: str, file: Path | None, settings: Settings, folder: Path) -> Path:
    """A folder as `generate` writes it: the recipe's own, or `file` with the rows that it lacks (the base's, as a
    rule) from there. Likelihoods are nobody else's: gates on them stay amber for answers that are handed in."""
    from persona_dagster.evaluation.loss import LIKELIHOOD_SCHEMA
    from persona_dagster.records import GENERATION_SCHEMA

    own = Versions(settings.generations_dir / recipe, "generations.parquet").latest()
    if file is None:
        if own is None:
            raise typer.BadParameter(f"{recipe} has no generations yet: hand in a file, or materialise `generations`")
        return own
    frame = pl.read_parquet(file)
    missing = [name for name in GENERATION_SCHEMA if name not in frame.columns]
    if missing:
        raise typer.BadParameter(f"{file}: no column {', '.join(missing)}; the columns are those of `generations`")
    frame = frame.select(GENERATION_SCHEMA.names()).cast(pl.Schema(GENERATION_SCHEMA))
    if empty := frame.filter(pl.col("answer").is_null() | pl.col("prompt_id").is_null()).height:
        raise typer.BadParameter(f"{file}: {empty} rows without an answer or a prompt_id")
    settings_file: dict[str, object] = {"base": resolved_recipe(recipe, settings).base.model_dump(), "dtype": "unknown"}
    settings_file |= {"sampling": {}, "seconds": 0.0, "adapter": None, "handed_in": file.name}
    if own is not None:
        stored = pl.read_parquet(own / "generations.parquet")
        frame = pl.concat([frame, stored.join(frame, on=KEYS, how="anti").filter(pl.col("model") != "adapter")])
    frame.write_parquet(folder / "handed-in.parquet")
    made = folder / f"handed-in-{file_digest(folder / 'handed-in.parquet')[:16]}"
    made.mkdir()
    frame.write_parquet(made / "generations.parquet")
    pl.DataFrame(schema=LIKELIHOOD_SCHEMA).write_parquet(made / "likelihoods.parquet")
    write_json(made / "settings.json", settings_file)
    return made


@app.command()
def judge(
    recipe: Annotated[str, typer.Argument(help="whose answers to compare")],
    port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 7861,
    name: Annotated[str, typer.Option(help="who votes; stands in the vote file")] = "reader",
    llm: Annotated[str | None, typer.Option(help="instead of a page: an OpenAI-compatible endpoint, …/v1")] = None,
    model: Annotated[str, typer.Option(help="the model that the endpoint is to ask")] = "",
) -> None:
    """A page that shows two answers to one prompt, blind, and takes your vote: the adapter's against its base's."""
    from persona_dagster.evaluation.blind_voting_page import KEYS, vote_by_model, vote_page

    settings = Settings()
    own = Versions(settings.generations_dir / recipe, "generations.parquet").newest()
    votes = settings.home / "votes" / f"{recipe}.jsonl"
    if llm:
        described = {key: persona.system_prompt for key, persona in _personas(settings).personas.items()}
        key = os.environ.get("PERSONA_JUDGE_KEY")
        record = vote_by_model(own, recipe, votes, url=llm, model=model, key=key, personas=described)
        typer.echo(json.dumps({name: value for name, value in record.items() if name != "prompt"}))
        return
    page = vote_page(own, recipe, votes, name)
    page.launch(server_name="127.0.0.1", server_port=port, head=KEYS)


@app.command()
def harness(
    recipe: Annotated[str, typer.Argument(help="whose newest adapter to measure, beside its base")],
    task: Annotated[list[str] | None, typer.Option(help="of lm-eval; several times for several")] = None,
    limit: Annotated[int | None, typer.Option(help="questions a task")] = None,
) -> None:
    """What others compare by: tasks of lm-eval for base and adapter, with standard errors; most come from the Hub."""
    from persona_dagster.evaluation.generate import as_model, load_models
    from persona_dagster.evaluation.job_spec import GenerateJob
    from persona_dagster.evaluation.lm_eval_harness import OWN, TASKS, own_task, run_tasks
    from persona_dagster.evaluation.prompts import knowledge

    settings = Settings()
    job = GenerateJob(
        recipe=resolved_recipe(recipe, settings),
        personas=_personas(settings),
        mix_dir=settings.mix_dir / recipe,
        models_dir=settings.models_dir,
        adapter_dir=Versions(settings.adapters_dir / recipe, RunCard.FILE).newest(),
        out_dir=settings.generations_dir / recipe,
    )
    model, tokenizer, _ = load_models(job)
    tasks: list[str | dict[str, Any]] = [own_task(knowledge(None)) if name == OWN else name for name in task or TASKS]
    found = {}
    for name in ("base", "adapter"):
        with as_model(model, name):
            found[name] = run_tasks(model, tokenizer, tasks, limit=limit)
    out = settings.home / "harness" / f"{recipe}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"adapter": job.adapter_dir.name, "limit": limit, "results": found})
    for name, results in found.items():
        for one, numbers in results.items():
            shown = ", ".join(f"{metric} {value:.3f}" for metric, value in sorted(numbers.items()))
            typer.echo(f"{name} · {one}: {shown}")
    typer.echo(str(out))


def _personas(settings: Settings) -> Personas:
    from persona_dagster.config.personas import load_personas

    return load_personas(settings.config_dir)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None
