"""Repetition, diversity, self-BLEU, broken answers: by hand, and against sacrebleu."""

from __future__ import annotations

import pytest

from persona_dagster.evaluation import collapse


def test_units_are_characters_for_han_and_words_for_latin() -> None:
    assert collapse.units("用 LoRA 微調，r=16！") == ["用", "LoRA", "微", "調", "，", "r", "=", "16", "！"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我好想你我好想你", 1 / 5),  # 5 four-grams, the first comes back once
        ("哈哈哈哈哈哈", 2 / 3),  # 3 four-grams, all the same
        ("一二三四五六", 0.0),
        ("短", 0.0),
        ("", 0.0),
        ("no no no no no no no", 3 / 4),  # words: 4 four-grams, one distinct
    ],
)
def test_rep_4(text: str, expected: float) -> None:
    assert collapse.repetition(text) == pytest.approx(expected)


def test_distinct() -> None:
    assert collapse.distinct(["你好", "你好"], 1) == pytest.approx(2 / 4)
    assert collapse.distinct(["你好嗎", "你好啊"], 2) == pytest.approx(3 / 4)
    assert collapse.distinct([""], 1) is None


TEXTS = [
    "抱抱你，這陣子一定很辛苦。慢慢來就好，我會陪你的。",
    "抱抱你，你一定很辛苦。慢慢來，我陪你。",
    "笑死，主管是在哈囉？LoRA rank 16 也救不了他！",
    "什麼是 Transformer？一種模型。",
    "好",
]


def test_self_bleu_is_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = []
    for place, text in enumerate(TEXTS):
        others = [" ".join(collapse.units(other)) for other in TEXTS[:place] + TEXTS[place + 1 :]]
        scored = sacrebleu.sentence_bleu(
            " ".join(collapse.units(text)), others, tokenize="none", use_effective_order=True
        )
        expected.append(scored.score)
        mine = collapse.sentence_bleu(collapse.units(text), [collapse.units(other) for other in TEXTS if other != text])
        assert mine == pytest.approx(scored.score, abs=1e-4)
    assert collapse.self_bleu(TEXTS) == pytest.approx(sum(expected) / len(expected), abs=1e-4)


def test_self_bleu_of_clones_is_100_and_of_strangers_near_0() -> None:
    assert collapse.self_bleu(["一樣的一句話啊"] * 3) == pytest.approx(100)
    assert (collapse.self_bleu(["甲乙丙丁戊", "子丑寅卯辰"]) or 0) < 1
    assert collapse.self_bleu(["只有一句"]) is None


def test_distinct_without_each_question_is_distinct_of_the_others() -> None:
    texts, asked = ["你好嗎", "你好啊", "再見了你", "嗎"], ["a", "b", "b", "c"]
    without = collapse.distinct_without(texts, asked, 2)
    for group in "abc":
        left = [text for text, one in zip(texts, asked, strict=True) if one != group]
        assert without[group] == pytest.approx(collapse.distinct(left, 2))
    assert collapse.distinct_without(["你好"], ["a"], 2) == {}, "nothing is left without it"


def test_alikeness_keeps_places_and_skips_blanks() -> None:
    scores = collapse.alikeness(["一樣的一句話啊", " ", "一樣的一句話啊"])
    assert scores == [pytest.approx(100), None, pytest.approx(100)]
    assert collapse.alikeness(["只有一句", ""]) == [None, None]


def test_broken() -> None:
    assert collapse.broken("  ", "stop", True) == "empty"
    assert collapse.broken("我愛你" * 20, "length", True) == "looping"
    assert collapse.broken("這句話說到一半就", "length", True) == "cut"
    assert collapse.broken("這句話說到一半就", "length", False) is None  # its reference would not have fitted either
    assert collapse.broken("剛好說完了。", "length", True) is None
    assert collapse.broken("沒有句號也可以", "stop", True) is None
    assert collapse.broken("說到一半就", "stop", True, off=True) == "cut"
    assert collapse.broken("這句話說到一半就", "length", False, off=True) is None  # a limit is not its fault


def test_identical_openings() -> None:
    same = ["首先我想說這件事真的很難", "首先我想說這件事其實不難", "完全不一樣的開頭在這裡喔"]
    assert collapse.identical_openings(same) == pytest.approx(1 / 3)
    assert collapse.identical_openings(["各說各話的第一種人", "誰都不想和別人一樣的人"]) == 0
    assert collapse.identical_openings([]) is None
