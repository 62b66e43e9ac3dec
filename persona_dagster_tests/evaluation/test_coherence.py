"""What is language and what is not, without a model: a reader that counts pairs of characters stands in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from persona_dagster.evaluation import coherence
from persona_dagster.evaluation.words import FLAWS, reason
from persona_dagster_tests.evaluation.material import VOICES

HUMAN = [answer for pairs in VOICES.values() for _, answer in pairs]
ASKED = [question for pairs in VOICES.values() for question, _ in pairs]
PAIRS = {text[place : place + 2] for text in HUMAN for place in range(len(text) - 1)}


def reader(texts: Sequence[str]) -> list[float]:
    """Nats a character: the share of pairs that no human answer holds."""
    return [
        sum(text[place : place + 2] not in PAIRS for place in range(len(text) - 1)) / max(1, len(text))
        for text in texts
    ]


@pytest.fixture(scope="module")
def bounds() -> coherence.Bounds:
    return coherence.calibrate(HUMAN[::2], None)


@pytest.mark.parametrize(
    ("answer", "question", "flaw"),
    [
        ("抱抱你，這段日子一定很難熬，慢慢來就好。", "我好像失戀了", None),
        ("I am sorry to hear that, please take your time.", "我好像失戀了", "not Chinese"),
        ("がんばってください、だいじょうぶです", "我好像失戀了", "not Chinese"),
        ("抱抱你，这段日子一定很难熬，慢慢来就好，会过去的。", "我好像失戀了", "Simplified"),
        ("抱抱你，這段日子\ufffd\ufffd一定很難熬。", "我好像失戀了", "broken characters"),
        ("抱抱你，慢慢來就好。<end_of_turn>", "我好像失戀了", "broken characters"),
        ("抱抱你，慢慢來就好。\n問：那我該怎麼辦\n答：先好好睡一覺。", "我好像失戀了", "both sides"),
        ("主管又把鍋甩給我，還要我加班到半夜", "主管又把鍋甩給我，還要我加班到半夜怎麼辦", "echo"),
        ("難子很抱來定慢一抱這熬好你段就日慢", "我好像失戀了", "no words"),
    ],
)
def test_each_flaw_is_named(answer: str, question: str, flaw: str | None, bounds: coherence.Bounds) -> None:
    assert coherence.flaws([answer], [question], [None], bounds) == [flaw]
    assert flaw is None or flaw in FLAWS


def test_one_answer_to_two_questions_is_a_flaw_also_behind_the_question(bounds: coherence.Bounds) -> None:
    said = "抱抱你，這段日子一定很難熬，慢慢來就好。"
    questions = ["主管又把鍋甩給我", "他三天沒有回我訊息"]
    answers = [f"{question}啊，{said}" for question in questions]
    assert coherence.flaws([said, said], questions, [None, None], bounds) == ["said before"] * 2
    assert coherence.flaws(answers, questions, [None, None], bounds) == ["said before"] * 2
    assert coherence.flaws([said, said], questions[:1] * 2, [None, None], bounds) == [None, None]


def test_a_template_with_its_nouns_exchanged_is_one_answer_and_people_never_repeat_themselves() -> None:
    said = "傻眼，{}也太扯了吧，這種直接封鎖，下一位！"
    answers = [said.format(noun) for noun in ("主管", "室友", "前男友")]
    assert coherence.said_before(answers, ["一", "二", "三"]) == [True] * 3
    assert coherence.said_before(answers[:2], ["一", "一"]) == [False] * 2
    assert not any(coherence.said_before(HUMAN, ASKED))


def test_an_answer_shorter_than_any_of_peoples_is_a_flaw(bounds: coherence.Bounds) -> None:
    assert bounds.shortest == coherence.SHORT
    assert coherence.flaws(["抱抱你喔"], ["我好像失戀了"], [None], bounds) == ["too short"]


def test_people_pass_and_their_shuffled_words_do_not() -> None:
    bounds = coherence.calibrate(HUMAN[::2], reader)
    assert bounds.likely is not None and bounds.order is not None
    rates = coherence.error_rates(list(zip(ASKED[1::2], HUMAN[1::2], strict=True)), reader, bounds)
    assert rates["rows"] == coherence.READ
    assert rates["false_alarms"] <= 0.25
    assert rates["shuffled_characters_pass"] == 0
    assert rates["shuffled_words_pass"] <= 0.1


def test_what_is_too_likely_is_a_flaw_too() -> None:
    bounds = coherence.Bounds(0.3, 0.1, (1.0, 4.0), 0.5, 4, 1.5, 16)
    assert coherence.read_flaw(0.4, 2.0, bounds) == "too likely"
    assert coherence.read_flaw(4.5, 2.0, bounds) == "salad"
    assert coherence.read_flaw(2.0, 0.1, bounds) == "out of order"
    assert coherence.read_flaw(2.0, 1.0, bounds) is None


def test_relevance_is_half_for_a_fixed_answer_and_for_dealt_ones() -> None:
    rng = np.random.default_rng(0)
    asked = rng.normal(size=(40, 16))
    questions, groups = [f"q{n}" for n in range(40)], ["a", "b"] * 20

    def mean(answers: np.ndarray) -> float:
        found = coherence.relevance(answers, asked, questions, groups)
        return float(np.mean([value for value in found if value is not None]))

    assert mean(asked + 0.3 * rng.normal(size=asked.shape)) > 0.95
    fixed = np.repeat(rng.normal(size=(2, 16)), 20, axis=0).reshape(2, 20, 16).transpose(1, 0, 2).reshape(40, 16)
    assert mean(fixed) == pytest.approx(0.5)
    dealt = np.concatenate([asked[2:], asked[:2]])
    assert mean(dealt) == pytest.approx(0.5, abs=0.08)
    assert coherence.relevance(asked[:3], asked[:3], questions[:3], ["a"] * 3) == [None] * 3


def test_the_reason_is_the_first_failed_gate() -> None:
    gate = {"value": 0.1, "threshold": 0.6, "bound": "at least"}
    metrics = {
        "gates": [
            {"name": "max_broken", "verdict": "red", **gate},
            {"name": "min_coherent", "verdict": "red", **gate},
            {"name": "min_relevance", "verdict": "amber", **gate},
        ],
        "detail": {"coherence": {"commonest": "salad"}},
    }
    said = reason(metrics)
    assert said.en.startswith("“Its answers are language” fails: 0.10, wanted at least 0.60 (mostly word salad)")
    assert said.zh.startswith("「回答是通順的中文」未過") and "另有 1 項" in said.zh
    assert reason({"gates": [metrics["gates"][2]], "detail": {}}).en.startswith("“Its answers are about")
    assert reason({"gates": [], "detail": {}}).en == "All 0 gates hold."
