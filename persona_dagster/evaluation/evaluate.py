"""The evaluation program: `python -m persona_dagster.evaluation.evaluate JOB.json`.

Reads generations, measures, judges the gates, and publishes metrics.json and a self-contained report.html in a
directory named by content. A re-run with nothing changed returns at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import Metrics, RunCard, Versions
from persona_dagster.config.recipes import Base
from persona_dagster.digest import file_digest, json_digest
from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.evaluation.fidelity import LEAST_ANSWERS, train_judge
from persona_dagster.evaluation.gates import Gate, judge_gates, verdict
from persona_dagster.evaluation.job_spec import EVALUATION_VERSION, EvaluateJob
from persona_dagster.evaluation.measure import Material, Measured, measure, worst_cases
from persona_dagster.evaluation.preference import read_votes
from persona_dagster.evaluation.prompts import MixRow, read_rows
from persona_dagster.evaluation.reference_model_likelihood import Reader
from persona_dagster.evaluation.report import losses, write_report
from persona_dagster.evaluation.report_texts import reason
from persona_dagster.models.encoder import load_encoder
from persona_dagster.models.output_filter import filter_text
from persona_dagster.pipes_reporting import Reporter, open_reporter

CODE = ("*.py", "probes/*.yaml", "templates/*")  # a change of the metrics makes new reports


def report_digest(job: EvaluateJob) -> str:
    """The name of this report: all that decides it."""
    here = Path(__file__).parent
    return json_digest(
        {
            "version": EVALUATION_VERSION,
            "code": [file_digest(path) for pattern in CODE for path in sorted(here.glob(pattern))],
            "generations": _generations(job).name,
            "evaluation": job.recipe.evaluation.model_dump(),
            "title": job.recipe.title,
            "healthy_loss": job.recipe.healthy_loss,
            "personas": job.personas.model_dump(mode="json"),
            "judge": file_digest(job.judge_rows) if job.judge_rows else None,
            "votes": file_digest(job.votes) if job.votes else None,
            "seeds": file_digest(job.seeds) if job.seeds else None,
            "run_card": file_digest(card) if (card := _run_card(job)) else None,
        }
    )


def _generations(job: EvaluateJob) -> Path:
    folder = job.generations_dir.resolve()
    if not (folder / "generations.parquet").is_file():
        raise FileNotFoundError(f"{folder}: no generations.parquet; run persona_dagster.evaluation.generate first")
    answered = json.loads((folder / "settings.json").read_text(encoding="utf-8")).get("adapter")
    if job.adapter_dir and answered != job.adapter_dir.name:
        raise ValueError(
            f"{folder}: answers of adapter {answered}, and {job.adapter_dir.name} is to be judged; "
            "materialise generations again"
        )
    return folder


def _run_card(job: EvaluateJob) -> Path | None:
    card = job.adapter_dir / RunCard.FILE if job.adapter_dir else None
    return card if card and card.is_file() else None


def evaluate(job: EvaluateJob, reporter: Reporter) -> Path:
    """Writes metrics.json, report.html and answers.parquet (a line an answer, with its measures)."""
    digest = report_digest(job)
    reports = Versions(job.out_dir, Metrics.FILE)
    if (found := reports.find(digest)) is not None:
        reporter.line(f"report {digest[:12]} is there already: nothing measured")
        reports.point(digest)
        return found
    started = time.perf_counter()
    generations = _generations(job)
    scorer = Scorer(load_encoder(job.recipe.evaluation.encoder, job.models_dir))
    material = read_material(job, generations, scorer)
    reporter.line(f"encoder and voice judge ready in {time.perf_counter() - started:.1f} s")
    measured = measure(material, scorer)
    gates = judge_gates(measured.gated, job.recipe.evaluation.gates)
    reporter.line(f"{measured.rows.height} answers measured in {time.perf_counter() - started:.1f} s")
    metrics = make_metrics(job, digest, material, measured, gates=gates, generations=generations)
    why = reason(metrics.model_dump())
    curve = dict(zip(("train", "validation"), losses(job), strict=True))
    metrics = metrics.model_copy(update={"reason": why.en, "reason_zh": why.zh, "curve": curve})
    with reports.publishing(digest) as staging:
        metrics.write(staging)
        measured.rows.write_parquet(staging / "answers.parquet")
        write_report(
            staging / "report.html", metrics.model_dump(mode="json"), measured.rows, worst_cases(measured.rows), job
        )
    reporter.line(f"verdict {metrics.verdict}: report in {time.perf_counter() - started:.1f} s")
    return reports.newest()


def read_material(job: EvaluateJob, generations: Path, scorer: Scorer) -> Material:
    """All inputs as frames and rows, the judge and the reader."""
    train, test = read_rows(job.mix_dir / "train.jsonl"), read_rows(job.mix_dir / "test.jsonl")
    held = job.mix_dir / "validation.jsonl"
    spec = job.recipe.evaluation
    base = job.recipe.base if spec.reader is None else Base(model=spec.reader)
    return Material(
        generations=pl.read_parquet(generations / "generations.parquet"),
        likelihoods=_likelihoods(generations),
        train=train,
        test=test,
        personas=job.personas,
        judge=train_judge(
            judge_rows(job.judge_rows, train, job.recipe.mix.answer_chars),
            list(job.personas.personas),
            scorer.sentences,
            # A Han character takes up to two tokens.
            hears=spec.max_new_tokens // 2 if spec.max_new_tokens < 128 else 1000,
            independent=job.judge_rows is not None,
        ),
        validation=read_rows(held) if held.is_file() else [],
        human=read_rows(job.judge_rows) if job.judge_rows else [],
        reader=Reader(base, job.models_dir) if spec.read_rows else None,
        read_rows=spec.read_rows,
        votes=read_votes([job.votes]) if job.votes else None,
        max_new_tokens=job.recipe.evaluation.max_new_tokens,
        clean=lambda text: filter_text(text, job.personas).text,
    )


def _likelihoods(generations: Path) -> pl.DataFrame:
    frame = pl.read_parquet(generations / "likelihoods.parquet")
    if "chars" not in frame.columns:
        raise ValueError(f"{generations}: made by an older version, which counted no characters; generate again")
    return frame


def judge_rows(
    path: Path | None, train: Iterable[MixRow], chars: tuple[int, int] | None = None
) -> list[tuple[str, str, str]]:
    """(voice, question, answer) from the rows that all recipes share, else from the recipe's own train rows.

    `chars`: of the answers that the recipe learns, and so of those to be judged. A voice whose answers are mostly
    shorter would be known by that: it is learned from those of such a length, where there are enough.
    """
    rows = [(row.persona, row.question, row.answer) for row in (read_rows(path) if path else train)]
    if chars is None:
        return rows
    alike = [row for row in rows if chars[0] <= len(row[2]) <= chars[1]]
    enough = {voice for voice, count in Counter(row[0] for row in alike).items() if count >= LEAST_ANSWERS}
    return [row for row in rows if row[0] not in enough] + [row for row in alike if row[0] in enough]


def make_metrics(
    job: EvaluateJob, digest: str, material: Material, measured: Measured, *, gates: list[Gate], generations: Path
) -> Metrics:
    settings = json.loads((generations / "settings.json").read_text(encoding="utf-8"))
    card = _run_card(job)
    run = RunCard.read(card.parent) if card else None
    return Metrics(
        recipe=job.recipe.name,
        title=job.recipe.title,
        digest=digest,
        generations=generations.name,
        verdict=verdict(gates),
        gates=[gate.as_dict() for gate in gates],
        key=key_numbers(measured, gates),
        intervals={name: interval.as_dict() for name, interval in sorted(measured.intervals.items())},
        detail=measured.detail,
        settings=settings,
        test={
            "rows": len(material.test),
            "digest": json_digest(sorted([row.row_id, row.answer] for row in material.test)),
        },
        shared_judge=job.judge_rows is not None,
        seeds=json.loads(job.seeds.read_text(encoding="utf-8"))["seeds"] if job.seeds else {},
        run=run,
    )


def key_numbers(measured: Measured, gates: list[Gate]) -> dict[str, float | int]:
    """Every interval's value, the gates by colour, and the scores without an interval: flat, for asset metadata."""
    numbers: dict[str, float | int] = {
        name: one.value for name, one in sorted(measured.intervals.items()) if one.value is not None
    }
    for colour in ("green", "amber", "red"):
        numbers[f"gates_{colour}"] = sum(gate.verdict == colour for gate in gates)
    for model, table in measured.detail["bertscore"]["models"].items():
        numbers[f"bertscore_rescaled_{model}"] = table["rescaled"]["F"]
    for model, value in measured.detail["perplexity"].items():
        if value is not None:
            numbers[f"perplexity_{model}"] = value
    for model, table in measured.detail["collapse"].items():
        for name in ("distinct_2", "self_bleu"):
            if table[name] is not None:
                numbers[f"{name}_{model}"] = table[name]
    return numbers


def dagster_metadata(folder: Path) -> dict[str, Any]:
    """Flat metadata of a published report: numbers and paths, no text of anybody's."""
    metrics = Metrics.read(folder)
    gates = "\n".join(
        f"| {gate['verdict']} | {gate['title']} | {_short(gate['value'])} | {gate['bound']} {gate['threshold']:g} |"
        for gate in metrics.gates
    )
    table = f"| verdict | gate | measured | threshold |\n|---|---|---:|---|\n{gates}"
    return {  # in the order of the asset's page: what a person asks first comes first
        "verdict": metrics.verdict,
        "report": {"raw_value": str(folder / "report.html"), "type": "path"},
        "gates": {"raw_value": table, "type": "md"},
        **{name: float(f"{x:.6g}") if isinstance(x, float) else x for name, x in metrics.key.items()},
    }


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main(path: Path) -> None:
    job = EvaluateJob.load(path)
    with open_reporter() as reporter:
        folder = evaluate(job, reporter)
        reporter.finish(dagster_metadata(folder), data_version=folder.name)
        reporter.line(f"{job.recipe.name}: {folder / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
