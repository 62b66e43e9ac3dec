"""The iteration report: Version 1.0 beside Version 2.0, and any other run that was evaluated, as measured.

It reads published reports alone. Numbers of two runs compare only under one test set and one voice judge: where
they differ, the page says so above the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from persona_dagster.artifacts import Metrics, Versions
from persona_dagster.digest import file_digest, json_digest
from persona_dagster.evaluation.report import TEMPLATES, WORDS, css, environment, figure, loss_svg
from persona_dagster.evaluation.report_texts import FLAWS, ITERATION, Words, cell_in_chinese

SAMPLES = 6


@dataclass(frozen=True)
class PublishedPage:
    """The published page, its content's digest, and its table for Dagster."""

    path: Path
    digest: str
    markdown: str


@dataclass(frozen=True)
class RecipeReport:
    """One recipe's report."""

    recipe: str
    metrics: dict[str, Any]
    answers: pl.DataFrame

    @property
    def card(self) -> dict[str, Any]:
        return self.metrics.get("run") or {}

    def interval(self, name: str) -> dict[str, Any]:
        return self.metrics["intervals"].get(name) or {}

    def value(self, name: str) -> float | None:
        return self.interval(name).get("value")


def write_iteration_report(folders: Mapping[str, Path], out: Path) -> PublishedPage:
    """Publishes `out/<digest>/iteration.html` over the report folders, by recipe, and moves `out/latest`.

    Raises ValueError without any folder.
    """
    if not folders:
        raise ValueError("no report to compare; evaluate at least one recipe first")
    runs = [read_run(recipe, folder) for recipe, folder in folders.items()]
    digest = json_digest(
        {
            "reports": {run.recipe: run.metrics["digest"] for run in runs},
            "code": [file_digest(path) for path in (Path(__file__), *sorted(TEMPLATES.iterdir()))],
        }
    )
    table = make_table(runs)
    pages = Versions(out, "iteration.html")
    if pages.find(digest) is None:
        with pages.publishing(digest) as staging:
            (staging / pages.holds).write_text(render(runs, table), encoding="utf-8")
    pages.point(digest)
    return PublishedPage(out / digest / pages.holds, digest, markdown(runs, table))


def read_run(recipe: str, folder: Path) -> RecipeReport:
    return RecipeReport(
        recipe, Metrics.read(folder).model_dump(mode="json"), pl.read_parquet(folder / "answers.parquet")
    )


def make_table(runs: list[RecipeReport]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Sections of (title, a cell a run)."""
    return [(section, [(title, [tell(run) for run in runs]) for title, tell in rows]) for section, rows in SECTIONS]


def _card(run: RecipeReport, key: str, form: str = "plain", unit: str = "") -> str:
    value = run.card.get(key)
    return "–" if value is None else f"{figure(float(value), form)}{unit}"


def _recipe(run: RecipeReport, *keys: str) -> str:
    value: Any = run.card.get("recipe", {})
    for key in keys:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    return "–" if value in ({}, None) else str(value)


def _spread(run: RecipeReport, name: str, form: str) -> str:
    one = run.interval(name)
    if one.get("value") is None:
        return "–"
    text = figure(one["value"], form)
    return (
        f"{text} ({figure(one['low'], form)} to {figure(one['high'], form)})"
        if one["enough"]
        else f"{text} (n = {one['n']})"
    )


def _band(run: RecipeReport) -> str:
    base = _recipe(run, "base", "model")
    band = run.card.get("recipe", {}).get("healthy_loss", {}).get(base)
    loss = run.value("loss_train")
    if band is None or loss is None:
        return "–"
    side = "inside" if band[0] <= loss <= band[1] else "below" if loss < band[0] else "above"
    return f"{side} {band[0]:g}–{band[1]:g}"


def _watts(run: RecipeReport) -> str:
    energy, seconds = run.card.get("energy_wh"), run.card.get("train_seconds")
    return f"{energy * 3600 / seconds:.0f} W mean, {energy:.2f} Wh" if energy and seconds else "no card"


def _memory(run: RecipeReport) -> str:
    peak = run.card.get("peak_memory_gib")
    if peak is None:
        return "–"
    on_card = bool(run.card.get("machine", {}).get("cards"))
    return f"{peak:.2f} GiB {'VRAM' if on_card else 'RAM (no card)'}"


def _gates(run: RecipeReport) -> str:
    names = [gate["name"] for gate in run.metrics["gates"] if gate["verdict"] == "red"]
    return f"{WORDS[run.metrics['verdict']]}" + (f": fails {', '.join(names)}" if names else "")


Tell = Callable[[RecipeReport], str]
SECTIONS: list[tuple[str, list[tuple[str, Tell]]]] = [
    ("Verdict", [("gates", _gates)]),
    (
        "Training",
        [
            ("base model", lambda run: _recipe(run, "base", "model")),
            ("epochs", lambda run: _recipe(run, "training", "epochs")),
            ("optimiser steps", lambda run: _card(run, "steps")),
            ("training time", lambda run: _card(run, "seconds", "one", " s")),
            ("peak memory", _memory),
            ("power", _watts),
        ],
    ),
    (
        "Data quality",
        [
            ("text", lambda run: _recipe(run, "mix", "text")),
            ("oversampling", lambda run: _recipe(run, "mix", "strategy")),
            ("train rows", lambda run: str(run.card.get("plan", {}).get("rows", "–"))),
            (
                "train answers with residue",
                lambda run: figure(run.metrics["detail"]["residue"]["train"]["raw"]["share"], "percent"),
            ),
        ],
    ),
    (
        "Loss, nats a token",
        [
            ("on train answers", lambda run: _spread(run, "loss_train", "plain")),
            ("on human test answers", lambda run: _spread(run, "loss_adapter", "plain")),
            ("of the base, same answers", lambda run: _spread(run, "loss_base", "plain")),
            ("test minus train", lambda run: figure(run.value("train_test_gap"))),
            ("train loss in the healthy band", _band),
        ],
    ),
    (
        "Generation behaviour",
        [
            ("asked voice", lambda run: _spread(run, "fidelity_adapter", "percent")),
            ("how clear it is", lambda run: _spread(run, "clarity_adapter", "percent")),
            ("… more than by the base", lambda run: _spread(run, "clarity_gain", "percent")),
            ("… more than a voice at random", lambda run: _spread(run, "over_chance_adapter", "percent")),
            ("voice chosen untold", lambda run: _spread(run, "routing_adapter", "percent")),
            ("tag against topic", lambda run: _spread(run, "contradiction_adapter", "percent")),
            ("BERTScore F1, raw", lambda run: _spread(run, "bertscore_f1_adapter", "plain")),
            ("repetition (rep-4)", lambda run: _spread(run, "repetition_adapter", "percent")),
            ("empty, looping, cut", lambda run: _spread(run, "broken_adapter", "percent")),
            ("residue in raw answers", lambda run: _spread(run, "residue_adapter", "percent")),
            ("copied from train, over chance", lambda run: _spread(run, "verbatim_excess", "percent")),
            ("knowledge lost", lambda run: _spread(run, "forgetting", "percent")),
        ],
    ),
]


def markdown(runs: list[RecipeReport], table: list[tuple[str, list[tuple[str, list[str]]]]]) -> str:
    """The table for Dagster: numbers and settings, no text of anybody's."""
    lines = [f"| | {' | '.join(run.metrics['title'] for run in runs)} |", "|---|" + "---|" * len(runs)]
    for section, rows in table:
        lines.append(f"| **{section}** |" + " |" * len(runs))
        lines += [f"| {title} | {' | '.join(cells)} |" for title, cells in rows]
    return "\n".join(lines)


def _voiced(runs: list[RecipeReport]) -> list[RecipeReport]:
    """The runs that were asked for a voice: a plain chat model has the judge in its report, and nothing to judge."""
    return [run for run in runs if run.value("fidelity_adapter") is not None]


def warnings(runs: list[RecipeReport]) -> list[str]:
    """Why some numbers of the table may not be set against each other."""
    voiced = _voiced(runs)
    found = []
    if len({run.metrics["detail"]["judge"]["digest"] for run in voiced}) > 1:
        found.append("The voices were judged by different judges: compare the gains over the base, not the shares.")
    if len({run.metrics["test"]["digest"] for run in voiced}) > 1:
        found.append("The runs have different test sets: their losses and scores do not compare.")
    if len({run.metrics["settings"]["base"]["model"] for run in runs}) > 1:
        found.append("The runs have different base models: their losses do not compare.")
    return found


def samples(runs: list[RecipeReport]) -> list[dict[str, Any]]:
    """Prompts that all runs with voices answered, personas in turn, with each run's answer."""
    voiced = _voiced(runs)
    frames = {
        run.recipe: {
            (row["suite"], row["prompt_id"]): row
            for row in run.answers.filter(pl.col("model") == "adapter").to_dicts()
            if row["suite"] in ("probe", "routing")
        }
        for run in voiced
    }
    if len(frames) < 2:
        return []
    first, *others = frames.values()
    shared = [key for key in first if all(key in other for other in others)]
    shared.sort(key=lambda key: (key[1].rsplit("-", 1)[-1], key[0], key[1]))
    return [
        {
            "question": first[key]["question"],
            "asked": first[key]["asked"],
            "suite": key[0],
            "answers": [{"title": run.metrics["title"], **frames[run.recipe][key]} for run in voiced],
        }
        for key in shared[:SAMPLES]
    ]


def curves(runs: list[RecipeReport]) -> list[dict[str, Any]]:
    """The loss curves of all runs, each in the scale of its own steps."""
    found = []
    for run in runs:
        points = run.metrics.get("curve") or {}
        train, held = (list(map(tuple, points.get(name, []))) for name in ("train", "validation"))
        if len(train) > 1:
            found.append({"title": run.metrics["title"], "svg": loss_svg(train, held, None)})
    return found


def render(runs: list[RecipeReport], table: list[tuple[str, list[tuple[str, list[str]]]]]) -> str:
    page = environment().get_template("iteration.html.j2")
    return page.render(
        runs=[
            {
                "title": run.metrics["title"],
                "verdict": run.metrics["verdict"],
                "reason": Words(run.metrics["reason_zh"] or _gates(run), run.metrics["reason"] or _gates(run)),
            }
            for run in runs
        ],
        curves=curves(runs),
        flaw_words=FLAWS,
        zh=ITERATION,
        in_chinese=cell_in_chinese,
        table=table,
        warnings=warnings(runs),
        samples=samples(runs),
        words=WORDS,
        css=css(),
    )
