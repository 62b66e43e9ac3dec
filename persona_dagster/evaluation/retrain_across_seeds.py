"""The program of other seeds: `python -m persona_dagster.evaluation.retrain_across_seeds JOB.json`.

Trains a recipe again with the seeds that follow its own, has each adapter answer and be judged as the published one is,
and keeps what the gates measured: how much of a verdict is luck. The weights are thrown away.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR

from persona_dagster.artifacts import Job, Metrics, RunCard, Versions, write_json
from persona_dagster.digest import file_digest, json_digest
from persona_dagster.evaluation.job_spec import EVALUATION_VERSION, EvaluateJob, GenerateJob, SeedsJob
from persona_dagster.pipes_reporting import Reporter, open_reporter
from persona_dagster.training.isolation import run_isolated
from persona_dagster.training.job_spec import TrainJob, mix_digest, recipe_digest

FILE = "seeds.json"

Run = Callable[[str, Path], None]  # a module of ours, and its job


def other_seeds(job: SeedsJob) -> list[int]:
    first = job.recipe.training.seed
    return list(range(first + 1, first + job.recipe.evaluation.seeds))


def run_program(module: str, job: Path) -> None:
    """In a process of its own, as the graph runs it, but for its report to Dagster: that is ours."""
    ours = {DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR}
    run_isolated([sys.executable, "-m", module, str(job)], {k: v for k, v in os.environ.items() if k not in ours})


def judge_seeds(job: SeedsJob, reporter: Reporter, run: Run = run_program) -> Path:
    """Writes `seeds.json`: by seed, its verdict and each gate's value and verdict. What is there already is kept, so a
    run that was interrupted goes on with the seed that it was at.

    Raises ProgramError where a training, its answers or its report fail.
    """
    path = job.out_dir / FILE
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    wanted = _digest(job)
    found: dict[str, Any] = stored.get("seeds", {}) if stored.get("of") == wanted else {}
    for seed in other_seeds(job):
        if str(seed) not in found:
            found[str(seed)] = _judge_one(job, seed, run)
            write_json(path, {"of": wanted, "seeds": found})
        reporter.line(f"{job.recipe.name}, seed {seed}: {found[str(seed)]['verdict']}")
    kept = {str(seed): found[str(seed)] for seed in other_seeds(job)}
    write_json(path, {"of": wanted, "seeds": kept})
    return path


def _digest(job: SeedsJob) -> str:
    """Of what decides all trainings and their reports, but for their seeds."""
    files = [file_digest(path) if path else None for path in (job.judge_rows, job.votes)]
    judged = job.recipe.evaluation.model_dump(exclude={"seeds"})
    return json_digest([EVALUATION_VERSION, recipe_digest(job.recipe), mix_digest(job.mix_dir), judged, files])


def _judge_one(job: SeedsJob, seed: int, run: Run) -> dict[str, Any]:
    work = job.out_dir / f"work-{seed}"
    training = job.recipe.training.model_copy(update={"seed": seed})
    recipe = job.recipe.model_copy(update={"training": training})
    shared: dict[str, Any] = {"recipe": recipe, "mix_dir": job.mix_dir, "models_dir": job.models_dir}

    def step(module: str, one: Job, out: Path, holds: str) -> Path:
        run(module, one.save(work / f"{module.rpartition('.')[2]}.json"))
        return Versions(out, holds).newest()

    adapters, answers, reports = work / "adapters", work / "generations", work / "reports"
    adapter = step(
        "persona_dagster.training.train",
        TrainJob(**shared, out_dir=adapters, checkpoints_dir=work / "checkpoints"),
        adapters,
        RunCard.FILE,
    )
    generations = step(
        "persona_dagster.evaluation.generate",
        GenerateJob(**shared, personas=job.personas, adapter_dir=adapter, out_dir=answers),
        answers,
        "generations.parquet",
    )
    report = step(
        "persona_dagster.evaluation.evaluate",
        EvaluateJob(
            **shared,
            personas=job.personas,
            adapter_dir=adapter,
            generations_dir=generations,
            out_dir=reports,
            judge_rows=job.judge_rows,
            votes=job.votes,
        ),
        reports,
        Metrics.FILE,
    )
    metrics = Metrics.read(report)
    shutil.rmtree(work)
    gates = {gate["name"]: {"value": gate["value"], "verdict": gate["verdict"]} for gate in metrics.gates}
    return {"verdict": metrics.verdict, "gates": gates}


def main(path: Path) -> None:
    job = SeedsJob.load(path)
    with open_reporter() as reporter:
        written = judge_seeds(job, reporter)
        reporter.finish({"seeds": {"raw_value": str(written), "type": "path"}}, data_version=file_digest(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
