"""Which voice was asked for and which is judged: fidelity in all its families, confusion, markers.

A voice is asked for by a tag, by what is said, or by a tag against what is said: all of them are fidelity. Clarity and
its surplus over chance are means over those prompts together; shares are given for each family too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from persona_dagster.config.personas import Personas
from persona_dagster.digest import text_digest
from persona_dagster.evaluation import coherence, fidelity
from persona_dagster.evaluation.bootstrap import NOTHING, Interval, mean_interval
from persona_dagster.evaluation.fidelity import Judge
from persona_dagster.evaluation.model_comparison import SPOKEN, compare, gain_over, of_model
from persona_dagster.evaluation.prompts import MixRow, routing
from persona_dagster.models.persona_classifier import Router, example_questions, train_classifier

SURE = 0.8  # a probability that would count as a voice judged

FAMILIES = {
    "fidelity": list(SPOKEN),
    "on_topic": ["test", "probe"],
    "routing": ["routing"],
    "contradiction": ["contradiction"],
}
SIDE = ("base", "adapter")
GATED = ("min_judge_accuracy", "min_fidelity_gain", "min_voice_over_chance", "min_tag_obedience")


def measure_voices(
    judge: Judge | None,
    rows: pl.DataFrame,
    intervals: dict[str, Interval],
    detail: dict[str, Any],
    *,
    personas: Personas,
    train: Sequence[MixRow],
    test: Sequence[MixRow],
    validation: Sequence[MixRow],
) -> dict[str, Interval]:
    """The gated numbers. `rows`: a line an answer, with `judged` and `told` (what `judge` says to it)."""
    if judge is None:
        detail["voices"] = None
        return dict.fromkeys(GATED, NOTHING)
    human = [row for row in test if row.persona in judge.voices]
    _people(judge, human, intervals, detail)
    known = _judged(rows, judge.voices)
    for name, suites in FAMILIES.items():
        compare(known.filter(pl.col("suite").is_in(suites)), "right", name, intervals)
    spoken = known.filter(pl.col("suite").is_in(SPOKEN))
    for name in ("clarity", "over_chance", "voiced"):
        compare(spoken, name, name, intervals)
    # Where both speak Chinese: what is left of the gain when the language is no part of it.
    intervals["clarity_voiced_gain"] = gain_over(spoken.filter(pl.col("voiced") == 1), "clarity")
    _beside_examples(known, intervals)
    detail["voices"] = list(judge.voices)
    accuracy = _examine(judge, validation, intervals)
    detail["judge"] = {
        "digest": judge.digest,
        "learnt_from": judge.learnt_from,
        "independent": judge.independent,
    }
    _router(personas, train, intervals, detail)
    routed = known.filter(pl.col("suite") == "routing")
    detail["routing_confusion"] = {model: _confusion(of_model(routed, model), judge) for model in SIDE}
    for model in SIDE:
        part = of_model(spoken, model)
        detail["confusion"][model] = _confusion(part, judge)
        answers = {voice: part.filter(pl.col("asked") == voice)["answer"].to_list() for voice in judge.voices}
        detail["markers"][model] = fidelity.by_voice(answers)
    return {
        "min_judge_accuracy": accuracy if judge.independent else replace(accuracy, enough=False),
        "min_fidelity_gain": intervals["clarity_gain"],
        "min_voice_over_chance": intervals["over_chance_adapter"],
        "min_tag_obedience": intervals["contradiction_adapter"],
    }


def _examine(judge: Judge, validation: Sequence[MixRow], intervals: dict[str, Interval]) -> Interval:
    """The judge on human validation answers: as they are, behind the opening of another voice, the openings alone, and
    with their characters shuffled (the last two ought to be no voice at all)."""
    rows = [(row.persona, row.question, row.answer) for row in validation if row.persona in judge.voices]
    disguised = fidelity.disguised(rows)
    for name, part in (("judge_accuracy", rows), ("judge_disguised", disguised)):
        judged = judge.hear([row[2] for row in part], [row[1] for row in part])
        intervals[name] = mean_interval(
            [float(voice == row[0]) for voice, row in zip(judged, part, strict=True)],
            groups=[text_digest(row[1]) for row in part],
        )
    alone = [opening for found in fidelity.openings(rows).values() for opening in found]
    for name, texts in (
        ("judge_sure_of_openings", alone),
        ("judge_sure_of_shuffled", [coherence.shuffled_chars(row[2]) for row in rows]),
    ):
        sure = judge.weigh(texts, [""] * len(texts)).max(axis=1) if texts else []
        intervals[name] = mean_interval([float(value > SURE) for value in sure])
    return intervals["judge_accuracy"]


def _router(
    personas: Personas, train: Sequence[MixRow], intervals: dict[str, Interval], detail: dict[str, Any]
) -> None:
    """The router, learned from example questions and the train rows, on the untagged prompts that are not among them:
    apart from what the model makes of such prompts without a tag or a persona's prompt."""
    asked = example_questions(personas)
    for row in train:
        if row.persona in asked:
            asked[row.persona].append(row.question)
    router = Router(personas, train_classifier(asked))
    shown = {question for questions in asked.values() for question in questions}
    prompts = [prompt for prompt in routing(personas, None) if prompt[2] not in shown]
    routed = [router.route(text).persona for _, _, text in prompts]
    wanted = [persona for _, persona, _ in prompts]
    right = [float(one == other) for one, other in zip(routed, wanted, strict=True)]
    intervals["routing_router"] = mean_interval(right)
    detail["router"] = fidelity.confusion(wanted, routed, [*personas.personas])


def with_clarity(rows: pl.DataFrame, judge: Judge | None) -> pl.DataFrame:
    """The rows with `clarity`, the probability of the asked voice (null where none is known)."""
    if judge is None:
        return rows.with_columns(clarity=pl.lit(None, dtype=pl.Float64))
    told = [
        pl.when(pl.col("asked") == voice).then(pl.col("told").list.get(place))
        for place, voice in enumerate(judge.voices)
    ]
    return rows.with_columns(clarity=pl.coalesce(told))


def _people(judge: Judge, human: list[MixRow], intervals: dict[str, Interval], detail: dict[str, Any]) -> None:
    """What the judge makes of people's own test answers: no model can be measured more surely."""
    questions = [row.question for row in human]
    groups = [text_digest(question) for question in questions]
    answers, asked = [row.answer for row in human], [row.persona for row in human]
    told = judge.weigh(answers, questions)
    judged = judge.likeliest(told)
    right = [float(voice == wanted) for voice, wanted in zip(judged, asked, strict=True)]
    clear = [float(row[judge.voices.index(wanted)]) for row, wanted in zip(told, asked, strict=True)]
    intervals["fidelity_human"] = mean_interval(right, groups=groups)
    intervals["clarity_human"] = mean_interval(clear, groups=groups)
    detail["confusion"] = {"human": fidelity.confusion(asked, judged, judge.voices)}
    by_voice = {voice: [row.answer for row in human if row.persona == voice] for voice in judge.voices}
    detail["markers"] = {"human": fidelity.by_voice(by_voice)}


def _judged(rows: pl.DataFrame, voices: Sequence[str]) -> pl.DataFrame:
    """The answers that were asked for in a voice, with what they are worth: `right`, `voiced`, `clarity`, and
    `over_chance`, the clarity less that of a voice drawn at random from those asked of the same model.

    A model that speaks one voice, or any, whatever it is asked, has nothing over chance.
    """
    known = rows.filter(pl.col("asked").is_in(list(voices)))
    # A voice counts only in an answer without a flaw.
    known = known.with_columns(
        told=pl.when(pl.col("flaw").is_null()).then("told").otherwise(pl.lit([0.0] * len(voices))),
        judged=pl.when(pl.col("flaw").is_null()).then("judged").otherwise(pl.lit(fidelity.UNCLEAR)),
    )
    clarity = [pl.when(pl.col("asked") == voice).then(pl.col("told").list.get(n)) for n, voice in enumerate(voices)]
    spoken = pl.col("suite").is_in(SPOKEN)
    share = [((pl.col("asked") == voice) & spoken).sum().over("model") / spoken.sum().over("model") for voice in voices]
    chance = [pl.col("told").list.get(n) * part for n, part in enumerate(share)]
    return known.with_columns(
        right=(pl.col("judged") == pl.col("asked")).cast(pl.Float64),
        voiced=(pl.col("judged") != fidelity.UNCLEAR).cast(pl.Float64),
        clarity=pl.coalesce(clarity),
    ).with_columns(over_chance=pl.col("clarity") - pl.sum_horizontal(chance))


def _beside_examples(known: pl.DataFrame, intervals: dict[str, Interval]) -> None:
    """All three models on the test prompts that the few-shot baseline answered, and the adapter's lead over it."""
    tested = known.filter(pl.col("suite") == "test")
    shown = tested.join(of_model(tested, "fewshot").select("prompt_id"), on="prompt_id", how="semi")
    compare(shown, "right", "shown", intervals, theirs="fewshot")


def _confusion(rows: pl.DataFrame, judge: Judge) -> dict[str, dict[str, int]]:
    return fidelity.confusion(rows["asked"].to_list(), rows["judged"].to_list(), judge.voices)
