"""Weights against an independent solver, and the rules that hold for any counts."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from persona_dagster.config.recipes import Mix
from persona_dagster.conversation.mixture_weights import WeightError, parity_budget, pour, shares, weigh


def solver_optimum(counts: list[int], asked: list[float], total: float, low: float, high: float) -> np.ndarray:
    """argmin sum(x^2 / p) subject to sum(x) = total and bounds, by scipy's bounded least squares.

    The equality enters as a heavily weighted row; x is scaled by its share so that the problem is well posed.
    """
    n, p = np.array(counts, float), np.array(asked)
    scale = total * np.sqrt(p)
    weight = 1e4
    rows = np.vstack([np.eye(len(n)), weight * scale / total])
    goal = np.concatenate([np.zeros(len(n)), [weight]])
    found = lsq_linear(rows, goal, bounds=(low * n / scale, high * n / scale + 1e-12), method="bvls", tol=1e-14)
    return found.x * scale


def random_problem(case: int) -> tuple[list[int], list[float], float, float, float]:
    """Counts, asked shares, budget, floor and cap of one mix."""
    rng = random.Random(case)
    size = rng.randint(1, 8)
    counts = [int(10 ** rng.uniform(0, 5)) for _ in range(size)]
    raw = [rng.uniform(0.02, 1) if rng.random() < 0.5 else n ** (1 / rng.uniform(1, 5)) for n in counts]
    asked = [value / sum(raw) for value in raw]
    cap, floor = rng.choice([1, 1.5, 3, 4, 10]), rng.choice([0.0, 0.5, 1.0])
    return counts, asked, sum(counts) * rng.uniform(0.2, 6), floor, cap


def test_pouring_is_the_feasible_optimum() -> None:
    """1,000 random mixes; a failure names its case."""
    for case in range(1000):
        counts, asked, budget, floor, cap = random_problem(case)
        named, wanted = ({str(i): value for i, value in enumerate(values)} for values in (counts, asked))
        rows = pour(named, wanted, budget, cap=cap, floor=floor)
        total = min(max(budget, floor * sum(counts)), cap * sum(counts))
        assert sum(rows.values()) == pytest.approx(total, rel=1e-9), case
        best = solver_optimum(counts, asked, total, floor, cap)
        got = np.array([rows[str(i)] for i in range(len(counts))])
        assert np.abs(got - best).max() <= 0.01 * total, case
        assert np.abs(got / got.sum() - best / best.sum()).max() <= 0.01, case


def test_the_richest_is_taken_once_and_the_scarce_up_to_the_cap() -> None:
    mix = Mix(cap=3, temperature=3)
    by_name = {weight.persona: weight for weight in weigh({"rich": 10_000, "middle": 5_000, "poor": 100}, mix)}
    assert by_name["rich"].repeats == pytest.approx(1)
    assert 1 < by_name["middle"].repeats < 3
    assert by_name["poor"].repeats == 3 and "parity not reached" in by_name["poor"].note
    assert sum(weight.asked for weight in by_name.values()) == pytest.approx(1)
    assert sum(weight.feasible for weight in by_name.values()) == pytest.approx(1)


def test_the_report_says_who_holds_parity_up() -> None:
    mix = Mix(shares={"rich": 0.2, "middle": 0.4, "poor": 0.4}, budget_rows=12_000)
    notes = {w.persona: w.note for w in weigh({"rich": 9_000, "middle": 2_000, "poor": 100}, mix)}
    assert "held at the cap of 3 copies" in notes["poor"]
    assert "no dialogue falls below one copy" in notes["rich"]
    assert notes["middle"] == ""
    even = Mix(shares={"a": 0.5, "b": 0.5})
    assert [w.note for w in weigh({"a": 100, "b": 50}, even)] == ["", ""]


def test_tokens_weigh_instead_of_rows() -> None:
    """Two voices of as many dialogues, one of them twice as wordy: parity of tokens doubles the terse one."""
    mix = Mix(shares={"terse": 0.5, "wordy": 0.5}, unit="tokens")
    weights = weigh({"terse": 100, "wordy": 100}, mix, {"terse": 1000, "wordy": 2000})
    assert {w.persona: w.repeats for w in weights} == pytest.approx({"terse": 2, "wordy": 1})
    assert [w.feasible for w in weights] == pytest.approx([0.5, 0.5])
    with pytest.raises(ValueError, match="budget_rows counts rows"):
        Mix(unit="tokens", budget_rows=10)


def test_counts_decide_anew_every_time() -> None:
    mix = Mix(shares={"a": 0.5, "b": 0.5})
    assert [w.repeats for w in weigh({"a": 100, "b": 50}, mix)] == pytest.approx([1, 2])
    assert [w.repeats for w in weigh({"a": 100, "b": 90}, mix)] == pytest.approx([1, 10 / 9])


def test_fixed_copies_exactly_and_none_copies_nothing() -> None:
    counts = {"a": 7, "b": 3}
    assert [w.repeats for w in weigh(counts, Mix(strategy="fixed", fixed={"b": 3}))] == [1, 3]
    assert [w.repeats for w in weigh(counts, Mix(strategy="none"))] == [1, 1]


def test_undersampling_only_where_allowed() -> None:
    shrunk = Mix(shares={"a": 0.1, "b": 0.9}, budget_rows=110, allow_undersampling=True)
    assert [w.repeats for w in weigh({"a": 100, "b": 100}, shrunk)] == pytest.approx([0.11, 0.99])
    kept = shrunk.model_copy(update={"allow_undersampling": False})
    assert [w.repeats for w in weigh({"a": 100, "b": 100}, kept)] == pytest.approx([1, 1])


def test_parity_budget_takes_nobody_below_once() -> None:
    counts = {"a": 10, "b": 1000}
    asked = shares(counts, Mix())
    rows = pour(counts, asked, parity_budget(counts, asked, 1e9), cap=1e9, floor=0)
    assert min(rows[name] / counts[name] for name in counts) == pytest.approx(1)


@pytest.mark.parametrize(
    ("counts", "fields", "message"),
    [
        ({"a": 5, "b": 0}, {}, "no train dialogues for b"),
        ({}, {}, "any persona"),
        ({"a": 5}, {"shares": {"a": 0.5, "zed": 0.5}}, "unknown personas zed"),
        ({"a": 5, "b": 5}, {"shares": {"a": 1.0}}, "leaves out b"),
        ({"a": 5, "b": 5}, {"shares": {"a": 1.0, "b": 0.0}}, "must be above 0"),
        ({"a": 5}, {"fixed": {"zed": 2}}, "unknown personas zed"),
    ],
)
def test_impossible_weights_are_refused(counts: dict[str, int], fields: dict[str, object], message: str) -> None:
    with pytest.raises(WeightError, match=message):
        weigh(counts, Mix.model_validate(fields))


def test_a_cap_below_one_is_refused_by_the_recipe() -> None:
    with pytest.raises(ValueError, match="cap"):
        Mix(cap=0.5)
