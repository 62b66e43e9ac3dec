"""Differences of two models over the same questions."""

from __future__ import annotations

import polars as pl
import pytest

from persona_dagster.evaluation.model_comparison import distinct_gain


def answers(base: list[str], adapter: list[str]) -> pl.DataFrame:
    said = [("base", place, text) for place, text in enumerate(base)]
    said += [("adapter", place, text) for place, text in enumerate(adapter)]
    return pl.DataFrame([{"model": model, "question": f"{place}", "answer": text} for model, place, text in said])


def test_a_model_that_says_one_thing_is_surely_less_diverse() -> None:
    varied = [chr(0x4E00 + 40 * place) + "子丑寅卯"[place % 4] + chr(0x5000 + 40 * place) for place in range(12)]
    one = distinct_gain(answers(varied, ["一樣的話"] * 12), 2)
    assert one.value == pytest.approx(3 / 36 - 1)
    assert one.n == 12 and one.enough
    assert one.high is not None and one.high < 0


def test_two_models_alike_differ_by_nothing() -> None:
    said = ["好的", "不好", "好吧"] * 4
    one = distinct_gain(answers(said, said), 1)
    assert (one.value, one.low, one.high) == (0, 0, 0)
    assert distinct_gain(answers(["", ""], ["好", "好"]), 1).value is None
