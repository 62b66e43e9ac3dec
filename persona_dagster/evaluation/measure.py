"""All metrics over one set of generations: from frames to the numbers, tables and cases of the report.

No file is written here and no model of ours is run: `generate` held it. The encoder of BERTScore, the voice judge and
the reader (a language model that was not trained here) work, all on the CPU where there is no card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.digest import text_digest
from persona_dagster.evaluation import catastrophic_forgetting, collapse, loss, preference, residue
from persona_dagster.evaluation.bertscore import Baseline, Scorer, checked
from persona_dagster.evaluation.bootstrap import (
    NOTHING,
    Interval,
    difference,
    mean_interval,
    paired_interval,
    share_interval,
)
from persona_dagster.evaluation.coherence import Calibration, calibrate
from persona_dagster.evaluation.coherence_and_relevance import (
    mark_flaws,
    measure_coherence,
    measure_relevance,
    measure_words,
)
from persona_dagster.evaluation.fidelity import Judge
from persona_dagster.evaluation.memorisation import Copied, TrainIndex
from persona_dagster.evaluation.model_comparison import MODELS, SPOKEN, compare, distinct_gain, mean_over, of_model
from persona_dagster.evaluation.prompts import MixRow, knowledge, question_of
from persona_dagster.evaluation.reference_model_likelihood import Read
from persona_dagster.evaluation.voice_metrics import measure_voices, with_clarity
from persona_dagster.models.encoder import BUNDLED

SIDES = {"base": "nats", "adapter": "nats_adapter"}  # columns of likelihoods, both models' side by side


@dataclass(frozen=True)
class Material:
    """What there is to measure."""

    generations: pl.DataFrame  # GENERATION_SCHEMA
    likelihoods: pl.DataFrame  # LIKELIHOOD_SCHEMA
    train: list[MixRow]
    test: list[MixRow]
    personas: Personas
    judge: Judge | None
    max_new_tokens: int
    clean: Callable[[str], str] | None = None  # the inference filter, where there is one
    validation: list[MixRow] = field(default_factory=list)  # human answers that no bound was set on
    human: list[MixRow] = field(default_factory=list)  # clean human train answers, which set the bounds; none: `train`
    reader: Read | None = None
    read_rows: int = 120
    votes: pl.DataFrame | None = None  # preference.VOTE_SCHEMA


@dataclass(frozen=True)
class Measured:
    """`gated` are the numbers that gates judge, `intervals` all numbers with their uncertainty, `detail` the
    tables of the report, `rows` a frame with a line an answer."""

    gated: dict[str, Interval]
    intervals: dict[str, Interval]
    detail: dict[str, Any]
    rows: pl.DataFrame


def measure(material: Material, scorer: Scorer) -> Measured:
    """Every metric family over `material`."""
    intervals: dict[str, Interval] = {}
    detail: dict[str, Any] = {}
    human = material.human or material.train
    calibration = calibrate([row.answer for row in human], material.reader, [row.answer for row in material.train])
    rows = _annotate(material, scorer, calibration)
    rows = mark_flaws(rows, calibration, material.read_rows)
    rows, relevant = measure_relevance(rows, scorer.sentences, human, material.validation, intervals)
    gated = {
        **measure_coherence(rows, calibration, material.validation, intervals, detail),
        **measure_words(rows, human, material.validation, intervals),
        **relevant,
        **_likelihood(material, intervals, detail),
        **measure_voices(
            material.judge,
            rows,
            intervals,
            detail,
            personas=material.personas,
            train=material.train,
            test=material.test,
            validation=material.validation,
        ),
        **_collapse(rows, intervals, detail),
        **_residue(material, rows, intervals, detail),
        **_memorisation(material, rows, intervals, detail),
        **_forgetting(material, intervals, detail),
    }
    rows = with_clarity(rows, material.judge)
    gated |= _preference(material, rows, intervals, detail)
    _similarity(material, rows, scorer, intervals, detail)
    return Measured(gated, intervals, detail, rows)


def _annotate(material: Material, scorer: Scorer, calibration: Calibration) -> pl.DataFrame:
    """A line an answer: the generation, the voice judged, repetition, what is broken, copied, left over; BERTScore."""
    index = TrainIndex((row.row_id, row.answer) for row in material.train)
    tags = residue.tag_pattern(material.personas)
    frame = material.generations
    questions = [question_of(messages) for messages in frame["messages"].to_list()]
    answers = frame["answer"].to_list()
    judged: list[Any] = [None] * len(answers)
    told: list[Any] = judged
    if material.judge:
        weighed = material.judge.weigh(answers, questions)
        judged, told = material.judge.likeliest(weighed), weighed.tolist()
    # A reference of the tokens that were allowed could have been written in full.
    fits = [_fits(text, material.max_new_tokens) for text in frame["reference"].to_list()]
    ends = zip(answers, frame["finish"].to_list(), fits, calibration.broken_off(answers), strict=True)
    copied = [index.look_up(text) for text in answers]
    scored = frame.with_row_index("place").filter((pl.col("suite") == "test") & pl.col("reference").is_not_null())
    values = scorer.score(scored["answer"].to_list(), scored["reference"].to_list())
    bert = dict(zip(scored["place"].to_list(), values.tolist(), strict=True))
    return frame.with_columns(
        pl.Series("question", questions, dtype=pl.String),
        pl.Series("judged", judged, dtype=pl.String),
        pl.Series("told", told, dtype=pl.List(pl.Float64)),
        pl.Series("repetition", [collapse.repetition(text) for text in answers], dtype=pl.Float64),
        pl.Series(
            "broken",
            [collapse.broken(*row) for row in ends],
            dtype=pl.String,
        ),
        pl.Series("residue", [residue.find(text, tags) for text in answers], dtype=pl.List(pl.String)),
        pl.Series("copied", [one.share for one in copied], dtype=pl.Float64),
        pl.Series("copied_run", [one.longest for one in copied], dtype=pl.Int64),
        pl.Series("copied_text", [one.text for one in copied], dtype=pl.String),
        pl.Series("copied_rows", [list(one.rows) for one in copied], dtype=pl.List(pl.String)),
        pl.Series("bertscore", [bert.get(place, [None] * 3)[2] for place in range(frame.height)], dtype=pl.Float64),
        pl.Series("bert_p", [bert.get(place, [None] * 3)[0] for place in range(frame.height)], dtype=pl.Float64),
        pl.Series("bert_r", [bert.get(place, [None] * 3)[1] for place in range(frame.height)], dtype=pl.Float64),
    )


def _fits(reference: str | None, max_new_tokens: int) -> bool:
    """Whether a reference surely fits the limit: two tokens a character is what a Latin-born tokenizer needs."""
    return reference is not None and 2 * len(reference) <= max_new_tokens


def _likelihood(material: Material, intervals: dict[str, Interval], detail: dict[str, Any]) -> dict[str, Interval]:
    frame = material.likelihoods.filter(pl.col("suite") != "knowledge")
    losses: dict[str, Interval] = {}
    for name, suite, model in (("base", "test", "base"), ("adapter", "test", "adapter"), ("train", "train", "adapter")):
        part = frame.filter((pl.col("suite") == suite) & (pl.col("model") == model)).sort("key")
        rates = (part["nats"] / part["tokens"]).to_list()
        losses[name] = mean_interval(rates, part["tokens"].to_list(), _asked(part, material))
        intervals[f"loss_{name}"] = losses[name]
    tested = frame.filter(pl.col("suite") == "test")
    both = tested.filter(pl.col("model") == "base").join(
        tested.filter(pl.col("model") == "adapter"), on="key", suffix="_adapter"
    )
    both = both.sort("key")
    gain = paired_interval(
        (both["nats"] / both["tokens"]).to_list(),
        (both["nats_adapter"] / both["tokens_adapter"]).to_list(),
        both["tokens"].to_list(),
        _asked(both, material),
    )
    intervals["loss_gain"] = gain
    groups = _asked(both, material)
    by_char = {name: (both[column] / both["chars"]).to_list() for name, column in SIDES.items()}
    for name, values in by_char.items():
        intervals[f"loss_char_{name}"] = mean_interval(values, both["chars"].to_list(), groups)
    intervals["loss_char_gain"] = paired_interval(by_char["base"], by_char["adapter"], both["chars"].to_list(), groups)
    gap = difference(losses["adapter"], losses["train"])
    intervals["train_test_gap"] = gap
    detail["perplexity"] = {name: loss.perplexity(one.value) for name, one in losses.items()}
    by_persona = (
        tested.group_by("persona", "model").agg(pl.col("nats").sum() / pl.col("tokens").sum()).sort("persona", "model")
    )
    detail["loss_by_persona"] = [
        {"persona": persona, "model": model, "loss": value} for persona, model, value in by_persona.rows()
    ]
    return {"min_loss_gain": gain, "max_train_test_gap": gap, "min_train_loss": losses["train"]}


def _asked(rows: pl.DataFrame, material: Material) -> list[str]:
    """The question of each row of likelihoods: answers to one hang together."""
    questions = {row.row_id: text_digest(row.question) for row in (*material.train, *material.test)}
    return [questions[key] for key in rows["key"].to_list()]


def _collapse(rows: pl.DataFrame, intervals: dict[str, Interval], detail: dict[str, Any]) -> dict[str, Interval]:
    spoken = rows.filter(pl.col("suite").is_in(SPOKEN)).with_columns(is_broken=pl.col("broken").is_not_null())
    compare(spoken, "repetition", "repetition", intervals)
    compare(spoken, "is_broken", "broken", intervals)
    alike = [
        part.with_columns(alike=pl.Series(collapse.alikeness(part["answer"].to_list()), dtype=pl.Float64))
        for part in (of_model(spoken, model) for model in MODELS)
    ]
    compare(pl.concat(alike), "alike", "self_bleu", intervals)
    for n in (1, 2):
        intervals[f"distinct_{n}_gain"] = distinct_gain(spoken, n)
    table: dict[str, Any] = {}
    for model in MODELS:
        part = of_model(spoken, model)
        answers = part["answer"].to_list()
        table[model] = {
            "answers": len(answers),
            "distinct_1": collapse.distinct(answers, 1),
            "distinct_2": collapse.distinct(answers, 2),
            "self_bleu": intervals[f"self_bleu_{model}"].value,
            "identical_openings": collapse.identical_openings(answers),
            "broken": dict(part.drop_nulls("broken")["broken"].value_counts().sort("broken").rows()),
            "mean_tokens": part["new_tokens"].mean(),
            "at_limit": (part["finish"] == "length").mean(),
        }
    references = spoken.filter(pl.col("model") == "adapter")["reference"].drop_nulls().unique().sort().to_list()
    table["human"] = {
        "answers": len(references),
        "distinct_1": collapse.distinct(references, 1),
        "distinct_2": collapse.distinct(references, 2),
        "self_bleu": collapse.self_bleu(references),
        "identical_openings": collapse.identical_openings(references),
        "broken": {},
        "mean_tokens": None,
        "at_limit": None,
    }
    intervals["repetition_human"] = mean_interval([collapse.repetition(text) for text in references])
    detail["collapse"] = table
    openings = table["adapter"]["identical_openings"]
    count = table["adapter"]["answers"]
    intervals["identical_openings"] = share_interval(openings, count) if count else NOTHING
    return {
        "max_repetition": intervals["repetition_adapter"],
        "max_broken": intervals["broken_adapter"],
        "max_identical_openings": intervals["identical_openings"],
    }


def _preference(
    material: Material, rows: pl.DataFrame, intervals: dict[str, Interval], detail: dict[str, Any]
) -> dict[str, Interval]:
    """The adapter against the few-shot base by the local judge; it decides only where people's votes confirm it."""
    spoken = rows.filter(pl.col("suite").is_in(SPOKEN))
    local = preference.preferred(spoken)
    groups = [text_digest(question) for question in local["question"].to_list()]
    found = mean_interval(local["preferred"].to_list(), groups=groups)
    intervals["preference"] = found
    agreed = preference.agreement(material.votes, spoken) if material.votes is not None else NOTHING
    intervals["judge_kappa"] = agreed
    detail["preference"] = {"pairs": local.height, "trusted": preference.trusted(agreed)}
    trusted = detail["preference"]["trusted"]
    return {"min_preference": found if trusted or found.value is None else replace(found, enough=False)}


def _residue(
    material: Material, rows: pl.DataFrame, intervals: dict[str, Interval], detail: dict[str, Any]
) -> dict[str, Interval]:
    found = rows.filter(pl.col("suite") != "reference_train").with_columns(
        has_residue=(pl.col("residue").list.len() > 0).cast(pl.Float64)
    )
    compare(found, "has_residue", "residue", intervals)
    detail["residue"] = {}
    for model in MODELS:
        answers = of_model(found, model)["answer"].to_list()
        raw = residue.measure(answers, material.personas)
        filtered = residue.measure(answers, material.personas, material.clean) if material.clean else None
        detail["residue"][model] = {"raw": asdict(raw), "filtered": asdict(filtered) if filtered else None}
    human = residue.measure([row.answer for row in material.test], material.personas)
    detail["residue"]["human"] = {"raw": asdict(human), "filtered": None}
    learnt = residue.measure([row.answer for row in material.train], material.personas)
    detail["residue"]["train"] = {"raw": asdict(learnt), "filtered": None}
    return {"max_residue": intervals["residue_adapter"]}


def _memorisation(
    material: Material, rows: pl.DataFrame, intervals: dict[str, Interval], detail: dict[str, Any]
) -> dict[str, Interval]:
    index = TrainIndex((row.row_id, row.answer) for row in material.train)
    human: list[Copied] = [index.look_up(row.answer) for row in material.test]
    chance = mean_interval([one.share for one in human], groups=[text_digest(row.question) for row in material.test])
    intervals["copied_human"] = chance
    compare(rows.filter(pl.col("suite").is_in(SPOKEN)), "copied", "copied", intervals)
    recited = mean_over(rows.filter(pl.col("suite") == "reference_train"), "copied")
    intervals["recited_train"] = recited
    expected = chance.value or 0.0
    # What it writes by itself, and what it recites when asked a training question: the worse one is judged.
    excess = [_minus(one, expected) for one in (intervals["copied_adapter"], recited) if one.value is not None]
    worst = max(excess, key=lambda one: one.value or 0.0, default=NOTHING)
    intervals["verbatim_excess"] = worst
    longest = rows.filter(pl.col("model") == "adapter")["copied_run"].max()
    detail["memorisation"] = {
        "n": index.n,
        "longest_adapter": longest,
        "longest_human": max((one.longest for one in human), default=0),
    }
    return {"max_verbatim": worst}


def _minus(interval: Interval, amount: float) -> Interval:
    if interval.value is None or interval.low is None or interval.high is None:
        return interval
    return Interval(interval.value - amount, interval.low - amount, interval.high - amount, interval.n, interval.enough)


def _forgetting(material: Material, intervals: dict[str, Interval], detail: dict[str, Any]) -> dict[str, Interval]:
    base, adapter = catastrophic_forgetting.choice_results(material.likelihoods)
    lost = catastrophic_forgetting.drop(base, adapter)
    intervals["forgetting"] = lost
    intervals["knowledge_base"] = mean_interval([float(right) for right in base.values()])
    intervals["knowledge_adapter"] = mean_interval([float(right) for right in adapter.values()])
    probes = knowledge(None)
    written = {
        model: catastrophic_forgetting.written_results(material.generations, probes, model)
        for model in ("base", "adapter")
    }
    detail["knowledge"] = [
        {
            "id": probe.id,
            "lang": probe.lang,
            "prompt": probe.prompt,
            "answer": probe.answer,
            "choice": {"base": base[probe.id], "adapter": adapter[probe.id]},
            "written": {model: results.get(probe.id) for model, results in written.items()},
        }
        for probe in probes
        if probe.id in base
    ]
    detail["knowledge_chance"] = (
        sum(1 / (1 + len(probe.wrong)) for probe in probes if probe.id in base) / len(base) if base else None
    )
    return {"max_forgetting": lost}


def _similarity(
    material: Material, rows: pl.DataFrame, scorer: Scorer, intervals: dict[str, Interval], detail: dict[str, Any]
) -> None:
    tested = rows.filter(pl.col("suite") == "test")
    baseline: Baseline = scorer.baseline([row.answer for row in material.test])
    table: dict[str, Any] = {}
    compare(tested, "bertscore", "bertscore_f1", intervals)
    for model in MODELS:
        part = of_model(tested, model)
        means = [part[name].mean() for name in ("bert_p", "bert_r", "bertscore")]
        if part.height:
            import numpy as np

            rescaled = baseline.rescale(part.select("bert_p", "bert_r", "bertscore").to_numpy()).mean(axis=0)
            table[model] = {
                "raw": dict(zip("PRF", means, strict=True)),
                "rescaled": dict(zip("PRF", np.asarray(rescaled).tolist(), strict=True)),
                "n": part.height,
            }
    encoder = scorer.encoder
    ours = tested.filter((pl.col("model") == "adapter") & pl.col("reference").is_not_null())
    said, human = ours["answer"].to_list(), ours["reference"].to_list()
    check = "offline encoder" if encoder.name == BUNDLED else checked(scorer, said, human)
    detail["bertscore"] = {
        "check": check,
        "models": table,
        "encoder": encoder.name,
        "layer": encoder.layer,
        "sha256": encoder.sha256,
        "baseline": {"values": list(baseline.values), "source": baseline.source, "pairs": baseline.pairs},
    }


def worst_cases(rows: pl.DataFrame, count: int = 4) -> dict[str, Sequence[dict[str, Any]]]:
    """The adapter's answers that an editor should read first, by kind of trouble."""
    ours = rows.filter(pl.col("model") == "adapter")
    spoken = ours.filter(pl.col("suite").is_in(SPOKEN))
    wrong = spoken.filter(pl.col("judged").is_not_null() & (pl.col("judged") != pl.col("asked")))
    kinds = {
        "copied": ours.filter(pl.col("copied_run") > 0).sort("copied", "copied_run", "prompt_id", descending=True),
        "residue": ours.filter(pl.col("residue").list.len() > 0).sort(pl.col("residue").list.len(), descending=True),
        "broken": spoken.drop_nulls("broken").sort("repetition", descending=True),
        "wrong voice": wrong.sort("suite", "prompt_id"),
        "farthest from the reference": spoken.drop_nulls("bertscore").sort("bertscore"),
    }
    return {name: frame.head(count).to_dicts() for name, frame in kinds.items() if frame.height}
