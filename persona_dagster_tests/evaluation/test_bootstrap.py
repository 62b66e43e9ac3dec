"""Intervals: against scipy, by groups, by pairs, and honest about small samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from persona_dagster.evaluation.bootstrap import LEAST, jackknife_interval, mean_interval, paired_interval


def test_interval_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=60)
    ours = mean_interval(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", random_state=3)
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(150):
        one = mean_interval(random.normal(0.3, 1, size=40).tolist())
        assert one.low is not None and one.high is not None
        covered += one.low <= 0.3 <= one.high
    assert 130 <= covered <= 150  # 95 % of 150 is 142; a percentile interval at n = 40 covers a little less


def test_repeated_rows_of_one_prompt_make_no_evidence() -> None:
    values, groups = [0.0, 1.0] * 10, [f"prompt {n % 4}" for n in range(20)]
    apart, together = mean_interval(values), mean_interval(values, groups=groups)
    assert together.n == 4
    assert not together.enough
    assert apart.enough
    assert apart.value == together.value


def test_pairs_are_sharper_than_means() -> None:
    random = np.random.default_rng(2)
    base = random.normal(0, 5, 40)
    paired = paired_interval((base + 0.5).tolist(), base.tolist())
    assert paired.low is not None and paired.low > 0
    assert paired.value == pytest.approx(0.5)
    alone = mean_interval((base + 0.5).tolist())
    assert alone.low is not None and alone.low < 0


def test_weights_make_the_mean_one_over_tokens() -> None:
    assert mean_interval([1.0, 4.0], weights=[3.0, 1.0]).value == pytest.approx(7 / 4)


@pytest.mark.parametrize("count", [0, 1, LEAST - 1])
def test_too_few_samples_prove_nothing(count: int) -> None:
    assert not mean_interval([1.0] * count).enough


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(8).normal(size=50)
    one = jackknife_interval(values.mean(), [np.delete(values, place).mean() for place in range(50)])
    assert one.low is not None and one.high is not None
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * stats.sem(values))
    assert one.n == 50 and one.enough
    assert not jackknife_interval(1.0, [1.0] * (LEAST - 1)).enough
    assert jackknife_interval(1.0, []).value is None
