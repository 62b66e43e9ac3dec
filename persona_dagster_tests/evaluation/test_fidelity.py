"""The voice judge on held-out human answers, on topics that mislead, and on what is no voice at all."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from persona_dagster.evaluation import fidelity
from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.evaluation.evaluate import judge_rows
from persona_dagster.evaluation.judge_training_data import write_judge_rows
from persona_dagster.evaluation.prompts import MixRow, read_rows
from persona_dagster.models.chat_format import with_persona
from persona_dagster.records import DIALOGUE_SCHEMA, SPLIT_SCHEMA
from persona_dagster_tests.evaluation.material import VOICES

NAMES = ["assistant", "mentor", "mouthpiece"]


@pytest.fixture(scope="module")
def judge(mix: Path, scorer: Scorer) -> fidelity.Judge:
    rows = [(row.persona, row.question, row.answer) for row in read_rows(mix / "train.jsonl")]
    made = fidelity.train_judge(rows, NAMES, scorer.sentences)
    assert made is not None
    return made


def test_hears_held_out_human_voices(judge: fidelity.Judge, mix: Path) -> None:
    test = read_rows(mix / "test.jsonl")
    judged = judge.hear([row.answer for row in test], [row.question for row in test])
    right = sum(row.persona == voice for row, voice in zip(test, judged, strict=True))
    assert right >= 17  # of 18


def test_hears_form_not_topic(judge: fidelity.Judge) -> None:
    jeer = "笑死，這模型背答案背得比補習班學生還熟啦，換個題目就傻眼！"
    warm = "抱抱你，學 Transformer 學得這麼辛苦。慢慢來，也許先休息一下，我會陪你的。"
    lists = "失戀是關係結束後的反應。\n1. 大腦會想念對方\n2. 常見時間是三個月\n提醒：睡眠很重要。"
    questions = ["什麼是過擬合？", "我學 Transformer 學到想放棄", "失戀是什麼？"]
    assert judge.hear([jeer, warm, lists], questions) == ["mouthpiece", "mentor", "assistant"]


@pytest.mark.parametrize("text", ["", "   ", "I am sorry to hear that you broke up with him.", "好", "!!!???"])
def test_no_voice_is_unclear(judge: fidelity.Judge, text: str) -> None:
    assert judge.hear([text], ["我好像失戀了"]) == [fidelity.UNCLEAR]


def test_no_voice_weighs_nothing(judge: fidelity.Judge) -> None:
    warm, faint, english = "抱抱你，慢慢來，我會陪你的。", "你可以看看這個。", "I am sorry to hear that."
    asked = ["我好難過"] * 3
    told = judge.weigh([warm, faint, english], asked)
    assert told[:2] == pytest.approx(judge.probabilities([warm, faint], asked[:2]))
    mentor = judge.voices.index("mentor")
    assert told[0, mentor] > told[1, mentor] > told[0, 1 - mentor]
    assert told[2].tolist() == [0, 0, 0]


def test_it_hears_no_more_of_people_than_models_may_say(mix: Path, scorer: Scorer) -> None:
    rows = [(row.persona, row.question, row.answer) for row in read_rows(mix / "train.jsonl")]
    short = fidelity.train_judge(rows, NAMES, scorer.sentences, hears=8)
    assert short is not None and short.hears == 8
    told = short.probabilities(["抱抱你，慢慢來，笑死傻眼！", "抱抱你，慢慢來，1. 定義"], ["問", "問"])
    assert told[0] == pytest.approx(told[1])
    assert short.digest != fidelity.train_judge(rows, NAMES, scorer.sentences).digest  # type: ignore[union-attr]


def test_the_question_repeated_is_no_voice() -> None:
    masked = fidelity.mask_topic("主管把錯推給我，LoRA 16", "主管把錯推給我")
    assert masked == "＿＿＿＿＿＿＿，A 0"


def test_labels_in_the_answer_are_not_heard_as_a_voice(judge: fidelity.Judge) -> None:
    plain = judge.probabilities(["抱抱你，慢慢來，我會陪你的。"], ["我好難過"])
    assert judge.voices[plain.argmax()] == "mentor"
    # A leaked tag of another persona does not turn a warm answer into a jeer.
    leaked = judge.hear(["[極品感情嘴替] 抱抱你，慢慢來，我會陪你的，你已經很努力了。"], ["我好難過"])
    assert leaked == ["mentor"]


def test_confusion_is_sklearns() -> None:
    from sklearn.metrics import confusion_matrix

    asked = ["assistant", "assistant", "mentor", "mouthpiece", "mentor"]
    judged = ["assistant", "mentor", "mentor", "unclear", "mentor"]
    table = fidelity.confusion(asked, judged, NAMES)
    expected = confusion_matrix(asked, judged, labels=[*NAMES, "unclear"])
    assert [list(table[name].values()) for name in NAMES] == expected[:3].tolist()


def test_markers_tell_the_voices_apart() -> None:
    marks = fidelity.by_voice({name: [answer for _, answer in pairs] for name, pairs in VOICES.items()})
    assert marks["assistant"]["list_items"] == 1
    assert marks["mentor"]["list_items"] == marks["mouthpiece"]["list_items"] == 0
    assert max(marks, key=lambda name: marks[name]["second_person"]) == "mentor"
    assert max(marks, key=lambda name: marks[name]["hedging"]) == "mentor"
    assert max(marks, key=lambda name: marks[name]["exclamation"]) == "mouthpiece"
    assert max(marks, key=lambda name: marks[name]["terms"]) == "assistant"


def test_too_little_to_learn_from_makes_no_judge(scorer: Scorer) -> None:
    assert fidelity.train_judge([("mentor", "問", "抱抱你")] * 20, NAMES, scorer.sentences) is None
    assert fidelity.train_judge([], NAMES, scorer.sentences) is None


def test_a_marker_of_another_voice_before_an_answer_changes_little(judge: fidelity.Judge, mix: Path) -> None:
    rows = [(row.persona, row.question, row.answer) for row in read_rows(mix / "test.jsonl")]
    disguised = fidelity.disguised(rows)
    assert all(
        after[2].endswith(before[2]) and after[2] != before[2] for before, after in zip(rows, disguised, strict=True)
    )
    judged = judge.hear([row[2] for row in disguised], [row[1] for row in disguised])
    assert sum(row[0] == voice for row, voice in zip(disguised, judged, strict=True)) >= 15  # of 18


def test_the_judge_learns_what_was_written_for_a_voice_and_nothing_it_is_examined_on(tmp_path: Path) -> None:
    dialogues, split = [], []
    for persona, pairs in VOICES.items():
        for place, (question, answer) in enumerate(pairs):
            turns = with_persona(
                [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], None, False
            )
            pair = f"{persona}-{place}"
            dialogues.append({"pair_id": pair, "messages": turns})
            split.append({"pair_id": pair, "component": pair, "split": ["test", "train", "validation"][place % 3]})
    written = [(persona, question, answer) for persona, pairs in VOICES.items() for question, answer in pairs]
    made = write_judge_rows(
        written,
        pl.DataFrame(dialogues, schema_overrides=DIALOGUE_SCHEMA, schema=["pair_id", "messages"]),
        pl.DataFrame(split, schema=SPLIT_SCHEMA),
        tmp_path / "judge.jsonl",
    )
    assert made is not None
    rows = read_rows(made)
    assert {row.answer for row in rows} == {pairs[place][1] for pairs in VOICES.values() for place in range(1, 18, 3)}
    assert write_judge_rows([], pl.DataFrame(schema=DIALOGUE_SCHEMA), pl.DataFrame(schema=SPLIT_SCHEMA), made) is None


def test_the_judge_learns_from_answers_as_long_as_those_it_judges() -> None:
    def row(voice: str, place: int, length: int) -> MixRow:
        turns = [{"role": "user", "content": "問"}, {"role": "assistant", "content": "字" * length}]
        return MixRow(f"{voice}-{place}", voice, turns)

    train = [row("mentor", place, 60) for place in range(6)] + [row("mouthpiece", place, 20) for place in range(9)]
    train += [row("mouthpiece", place, 50) for place in range(5)] + [row("assistant", place, 10) for place in range(4)]
    learned = judge_rows(None, train, (40, 170))
    lengths = {voice: {len(row[2]) for row in learned if row[0] == voice} for voice in ("mentor", "mouthpiece")}
    assert lengths == {"mentor": {60}, "mouthpiece": {50}}
    assert sum(row[0] == "assistant" for row in learned) == 4, "all of a voice that has too few of that length"
    assert len(judge_rows(None, train)) == len(train)
