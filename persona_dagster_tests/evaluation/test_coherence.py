"""What is language and what is not, without a model: a reader that counts pairs of characters stands in."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.evaluation import coherence
from persona_dagster.evaluation.bootstrap import Interval
from persona_dagster.evaluation.coherence_and_relevance import measure_words
from persona_dagster.evaluation.relevance import Relevance, beside_people
from persona_dagster.evaluation.report_texts import FLAWS, reason
from persona_dagster.evaluation.truncation_detection import Endings
from persona_dagster_tests.evaluation import controls
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
def people() -> coherence.Calibration:
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
def test_each_flaw_is_named(answer: str, question: str, flaw: str | None, people: coherence.Calibration) -> None:
    assert people.flaws([answer], [question], [None]) == [flaw]
    assert flaw is None or flaw in FLAWS


def test_one_answer_to_two_questions_is_a_flaw_also_behind_the_question(people: coherence.Calibration) -> None:
    said = "抱抱你，這段日子一定很難熬，慢慢來就好。"
    questions = ["主管又把鍋甩給我", "他三天沒有回我訊息"]
    answers = [f"{question}啊，{said}" for question in questions]
    assert people.flaws([said, said], questions, [None, None]) == ["said before"] * 2
    assert people.flaws(answers, questions, [None, None]) == ["said before"] * 2
    assert people.flaws([said, said], questions[:1] * 2, [None, None]) == [None, None]


def test_a_template_with_its_nouns_exchanged_is_one_answer_and_people_never_repeat_themselves() -> None:
    said = "傻眼，{}也太扯了吧，這種直接封鎖，下一位！"
    answers = [said.format(noun) for noun in ("主管", "室友", "前男友")]
    assert coherence.said_before(answers, ["一", "二", "三"]) == [True] * 3
    assert coherence.said_before(answers[:2], ["一", "一"]) == [False] * 2
    assert not any(coherence.said_before(HUMAN, ASKED))


def test_an_answer_shorter_than_any_of_peoples_is_a_flaw(people: coherence.Calibration) -> None:
    assert people.bounds.shortest == coherence.SHORT
    assert people.flaws(["抱抱你喔"], ["我好像失戀了"], [None]) == ["too short"]


def test_people_pass_and_their_shuffled_words_do_not() -> None:
    people = coherence.calibrate(HUMAN[::2], reader)
    assert people.bounds.likely is not None and people.bounds.order is not None
    rates = coherence.error_rates(list(zip(ASKED[1::2], HUMAN[1::2], strict=True)), people)
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


def test_what_is_pieced_together_from_train_answers_is_a_flaw_and_people_share_pieces() -> None:
    train = [
        f"{left}{right}" for left in ("今天先好好睡一覺，", "他根本沒有在聽，") for right in ("慢慢來就好", "快逃吧")
    ]
    people = coherence.calibrate(HUMAN, None, [*train, *HUMAN[::3]])
    pieced = "今天先好好睡一覺，他根本沒有在聽，慢慢來就好"
    assert people.flaws([pieced], ["我好像失戀了"], [None]) == ["patchwork"]
    found = people.flaws(HUMAN, ASKED, [None] * len(HUMAN))
    assert found.count("patchwork") <= 0.05 * len(HUMAN)
    # A train answer itself is held against all others: to recite one is another gate's business.
    assert coherence.Pieces(["甲乙丙丁"]).shares("甲乙丙丁") == (0.0, 0.0)
    assert coherence.Pieces(["甲乙丙丁", "乙丙丁戊"]).shares("甲乙丙丁") == (2 / 3, 1 / 2)


def test_halves_break_off_and_whole_answers_do_not() -> None:
    endings = Endings(HUMAN, coherence.OUTER)
    whole = endings.broken_off(HUMAN)
    halves = endings.broken_off([text[: len(text) // 2] for text in HUMAN])
    assert sum(whole) <= 0.05 * len(HUMAN) < 0.3 * len(HUMAN) < sum(halves)
    assert Endings(HUMAN[:5], coherence.OUTER).broken_off(["說到一半就"]) == [False]


def counted(texts: Sequence[str]) -> np.ndarray:
    """Vectors that know nothing: all the same."""
    return np.ones((len(texts), 4))


def test_relevance_is_half_for_a_fixed_answer_and_for_dealt_ones() -> None:
    voices = [voice for voice, pairs in VOICES.items() for _ in pairs]
    relevance = Relevance([*HUMAN, *ASKED], counted)

    def mean(answers: Sequence[str], questions: Sequence[str] = ASKED) -> float:
        found = relevance(answers, questions, voices)
        return float(np.mean([value for value in found if value is not None]))

    echoed = [f"我懂，{question}" for question in ASKED]
    assert mean(echoed) > 0.95 > mean(HUMAN) > 0.6
    assert mean(["抱抱你，慢慢來就好。"] * len(ASKED)) == pytest.approx(0.5)
    dealt = [*HUMAN[1:], HUMAN[0]]
    assert mean(dealt) == pytest.approx(0.5, abs=0.1)
    assert relevance(HUMAN[:3], ASKED[:3], ["a"] * 3) == [None] * 3
    assert relevance([], [], []) == []


def test_many_wrong_characters_make_fewer_words_than_people_do(personas: Personas) -> None:
    """An answer may have rare words; all of them together have as many as people's."""
    made = controls.sample(personas, 1)
    frame = controls.human(made)

    def share(answers: pl.DataFrame) -> Interval:
        questions = [row.question for row in made.test for _ in range(3)]
        rows = answers.with_columns(pl.Series("question", questions, dtype=pl.String))
        return measure_words(rows, made.train, made.validation, {})["min_words"]

    rng = random.Random(1)
    people, wrong, shuffled = (
        share(frame),
        share(controls.typos(made)(frame, rng)),
        share(controls.shuffled_characters(frame, rng)),
    )
    assert (people.low or 0) > 0.8 > (wrong.high or 1) and people.value == pytest.approx(1, abs=0.1)
    assert shuffled.value == pytest.approx(0, abs=0.1)
    assert share(controls.english(frame, rng)).value is None


def test_relevance_stands_between_chance_and_people() -> None:
    found, people = Interval(0.7, 0.65, 0.75, 40, enough=True), Interval(0.9, 0.8, 0.95, 40, enough=True)
    share = beside_people(found, people)
    assert (share.value, share.low, share.high) == (pytest.approx(0.5), pytest.approx(0.375), pytest.approx(0.625))
    assert share.enough
    assert not beside_people(found, Interval(0.6, 0.45, 0.7, 40, enough=True)).enough
    assert beside_people(found, Interval(0.5, 0.4, 0.6, 40, enough=True)).value is None


def test_the_reason_is_the_first_failed_gate() -> None:
    gate = {"value": 0.1, "low": 0.05, "high": 0.2, "threshold": 0.6, "bound": "at least"}
    metrics = {
        "gates": [
            {"name": "max_broken", "verdict": "red", **gate},
            {"name": "min_coherent", "verdict": "red", **gate},
            {"name": "min_relevance", "verdict": "amber", **gate},
        ],
        "detail": {"coherence": {"commonest": "salad"}},
    }
    said = reason(metrics)
    assert said.en.startswith("“Its answers are language” fails: 0.10 (0.05 to 0.20), wanted at least 0.60 (")
    assert said.zh.startswith("「回答是通順的中文」未過") and "另有 1 項" in said.zh
    assert reason({"gates": [metrics["gates"][2]], "detail": {}}).en.startswith("“Its answers are about")
    assert reason({"gates": [], "detail": {}}).en == "All 0 gates hold."
