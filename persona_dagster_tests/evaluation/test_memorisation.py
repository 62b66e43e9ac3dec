"""Verbatim copies: shares, runs and rows by hand."""

from __future__ import annotations

import pytest

from persona_dagster.evaluation.memorisation import TrainIndex

TRAIN = [
    ("row-a", "過擬合是指模型記住了訓練資料的細節，測試時就失準。"),
    ("row-b", "今天天氣很好，我們一起去公園散步，順便吃冰淇淋。"),
    ("row-c", "笑死"),
]


def test_a_recited_answer_is_copied_whole() -> None:
    found = TrainIndex(TRAIN).look_up(TRAIN[0][1])
    assert found.share == 1
    assert found.longest == len(TRAIN[0][1])
    assert found.rows == ("row-a",)
    assert found.text == TRAIN[0][1]


def test_a_spliced_answer_names_its_rows_and_longest_run() -> None:
    text = "我覺得，今天天氣很好，我們一起去公園散步，其他的我自己編了很多很多的字上去。"
    found = TrainIndex(TRAIN).look_up(text)
    assert found.rows == ("row-b",)
    assert found.text == "今天天氣很好，我們一起去公園散步，"
    assert found.longest == 17
    assert found.share == pytest.approx(5 / 26)  # 38 units, 26 windows of 13, 5 within the run of 17


def test_a_run_does_not_jump_from_row_to_row() -> None:
    first, second = TRAIN[0][1], TRAIN[1][1]
    found = TrainIndex(TRAIN).look_up(first[:14] + second[:20])
    assert found.text == second[:20]
    assert found.longest == 20


def test_a_run_lives_on_in_the_row_that_holds_it_longest() -> None:
    index = TrainIndex([("a", "一二三四"), ("b", "二三四五六")], n=3)
    found = index.look_up("一二三四五六")
    assert (found.longest, found.text) == (5, "二三四五六")


def test_common_phrases_and_short_answers() -> None:
    index = TrainIndex(TRAIN)
    assert index.look_up("過擬合是指模型").share == 0  # under 13 units, and no whole answer
    assert index.look_up("笑死").share == 1
    assert index.look_up("").share == 0


def test_words_count_as_units_in_latin_script() -> None:
    text = "the quick brown fox jumps over the lazy dog and then it sleeps all day"
    found = TrainIndex([("en", text)]).look_up(text.upper())
    assert found.share == 0
    assert TrainIndex([("en", text)]).look_up(f"well, {text}").longest == 15
