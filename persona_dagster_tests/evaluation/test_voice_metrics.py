"""What is asked and what is judged, on tables small enough to count by hand."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import polars as pl
import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.evaluation.fidelity import Judge
from persona_dagster.evaluation.prompts import routing
from persona_dagster.evaluation.voice_metrics import measure_voices

ASSISTANT, MENTOR, MOUTHPIECE = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
ENGLISH = [0.0, 0.0, 0.0]
PERSONAS = load_personas(PACKAGED)
NOTHING: dict[str, Any] = {"personas": PERSONAS, "train": [], "test": [], "validation": []}
VOICES = ("assistant", "mentor", "mouthpiece")


def measured(
    answers: dict[str, list[list[float]]], suite: str = "routing", also: list[dict[str, Any]] | None = None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Each model's answers to one prompt of each voice in turn, and `also` other rows."""
    judge = Judge(VOICES, 1000, "digest", 9, embed=lambda texts: np.zeros((len(texts), 1)), models=(None, None))
    rows = [
        {
            "model": model,
            "suite": suite,
            "prompt_id": str(place),
            "question": f"question {place}",
            "asked": VOICES[place % 3],
            "judged": VOICES[int(np.argmax(told))] if any(told) else "unclear",
            "told": told,
            "answer": "好",
            "flaw": None,
        }
        for model, said in answers.items()
        for place, told in enumerate(said)
    ]
    intervals: dict[str, Any] = {}
    detail: dict[str, Any] = {}
    gated = measure_voices(judge, _frame(rows + (also or [])), intervals, detail, **NOTHING)
    return intervals, detail, cast("dict[str, Any]", gated)


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema_overrides={"flaw": pl.String})


def test_a_voice_counts_only_in_an_answer_without_a_flaw() -> None:
    right = [ASSISTANT, MENTOR, MOUTHPIECE] * 3
    judge = Judge(VOICES, 1000, "digest", 9, embed=lambda texts: np.zeros((len(texts), 1)), models=(None, None))
    rows = [
        {
            "model": "adapter", "suite": "routing", "prompt_id": str(place), "question": f"question {place}",
            "asked": VOICES[place % 3], "judged": VOICES[place % 3], "told": told, "answer": "好",
            "flaw": "salad" if place % 3 else None,
        }
        for place, told in enumerate(right)
    ]  # fmt: skip
    intervals: dict[str, Any] = {}
    measure_voices(judge, _frame(rows), intervals, {}, **NOTHING)
    assert intervals["fidelity_adapter"].value == pytest.approx(1 / 3)
    assert intervals["clarity_adapter"].value == pytest.approx(0.8 / 3)


def test_clarity_is_the_asked_voices_probability_and_chance_is_taken_off() -> None:
    right = [ASSISTANT, MENTOR, MOUTHPIECE] * 3
    english_first = [ENGLISH, MENTOR, MOUTHPIECE] * 3
    intervals, detail, gated = measured({"base": english_first, "adapter": right})
    assert intervals["clarity_adapter"].value == pytest.approx(0.8)
    assert intervals["clarity_base"].value == pytest.approx(0.8 * 2 / 3)
    assert gated["min_fidelity_gain"].value == pytest.approx(0.8 / 3)
    assert intervals["voiced_base"].value == pytest.approx(2 / 3)
    # 0.8 less the third of a voice drawn from three.
    assert gated["min_voice_over_chance"].value == pytest.approx(0.8 - 1 / 3)
    assert detail["routing_confusion"]["base"]["assistant"] == {**dict.fromkeys(VOICES, 0), "unclear": 3}


def test_one_voice_for_all_has_nothing_over_chance_however_often_it_is_asked_for() -> None:
    intervals, _, gated = measured({"base": [ENGLISH] * 10, "adapter": [ASSISTANT] * 10})
    assert intervals["clarity_adapter"].value == pytest.approx((4 * 0.8 + 6 * 0.1) / 10)  # asked for 4 times of 10
    assert gated["min_voice_over_chance"].value == pytest.approx(0)
    assert gated["min_fidelity_gain"].value > 0


def test_questions_asked_again_from_train_count_for_nothing() -> None:
    again = {"suite": "reference_train", "prompt_id": "t", "question": "t", "asked": "mentor", "judged": "mentor"}
    rows = [{"model": "adapter", **again, "told": MENTOR, "answer": "好", "flaw": None}] * 50
    plain = measured({"base": [ENGLISH] * 9, "adapter": [ASSISTANT, MENTOR, MOUTHPIECE] * 3})[0]
    more = measured({"base": [ENGLISH] * 9, "adapter": [ASSISTANT, MENTOR, MOUTHPIECE] * 3}, also=rows)[0]
    assert more["over_chance_adapter"] == plain["over_chance_adapter"]


def test_what_is_gained_where_both_speak_chinese() -> None:
    """The base gets one in three right, and says a third in English."""
    base, ours = [ENGLISH, MENTOR, MENTOR] * 5, [ASSISTANT, MENTOR, MOUTHPIECE] * 5
    intervals = measured({"base": base, "adapter": ours})[0]
    assert intervals["clarity_gain"].value == pytest.approx((0.8 + 0 + 0.7) / 3)
    assert intervals["clarity_voiced_gain"].value == pytest.approx(0.7 / 2)


def test_three_models_on_the_prompts_that_few_shot_answered() -> None:
    voices = [ASSISTANT, MENTOR, MOUTHPIECE]
    base, ours, shown = [ENGLISH] * 15, voices * 5, [MENTOR] * 9
    intervals = measured({"base": base, "adapter": ours, "fewshot": shown}, suite="test")[0]
    assert intervals["shown_adapter"].n == intervals["shown_base"].n == 9
    assert intervals["shown_fewshot"].value == pytest.approx(1 / 3)
    assert intervals["shown_gain"].value == pytest.approx(2 / 3)


def test_the_router_is_counted_apart_from_the_model_on_prompts_that_it_never_saw() -> None:
    shown = {question for persona in PERSONAS.personas.values() for question in persona.questions}
    unseen = [text for _, _, text in routing(PERSONAS, None) if text not in shown]
    assert len(unseen) >= 150
    intervals, detail, _ = measured({"base": [ENGLISH] * 9, "adapter": [MENTOR] * 9})
    assert sum(sum(row.values()) for row in detail["router"].values()) == len(unseen)
    assert detail["router"]["mentor"]["mentor"] > detail["router"]["mentor"]["assistant"]
    assert intervals["routing_router"].low > 1 / 3
    assert detail["routing_confusion"]["adapter"]["assistant"]["mentor"] == 3
