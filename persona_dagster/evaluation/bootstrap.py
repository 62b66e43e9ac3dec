"""How sure a number is: percentile bootstrap intervals of means and of paired differences.

Rows are resampled in groups (answers to one prompt hang together), base and adapter in pairs. Where all values are 0,
or all 1, no resample differs, and Wilson's interval stands in. What is no mean (a count of different n-grams, which
any resample lowers) has a jackknife. Source: Efron & Tibshirani 1993, chapters 13 and 11; for paired system
comparison, Koehn 2004; Wilson 1927.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

ROUNDS = 2000
LEAST = 8  # groups: under this, a percentile interval is narrower than the truth and is not judged


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval. `enough` is False under LEAST groups: then low and high prove nothing."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    enough: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


NOTHING = Interval(None, None, None, 0, False)


def mean_interval(
    values: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    *,
    share: bool = True,
) -> Interval:
    """The (weighted) mean of `values`, resampled by group; one group a value by default. `share`: values lie in 0-1."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        return NOTHING
    weight = np.ones_like(array) if weights is None else np.asarray(weights, dtype=float)
    _, member = np.unique(np.arange(array.size) if groups is None else np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    sums = np.bincount(member, weights=array * weight, minlength=count)
    sizes = np.bincount(member, weights=weight, minlength=count)
    drawn = np.random.default_rng(seed).integers(0, count, size=(ROUNDS, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    value = float(sums.sum() / sizes.sum())
    low, high = (float(end) for end in np.quantile(means, [0.025, 0.975]))
    if share and value in (0.0, 1.0):
        low, high = wilson(value, count)
    return Interval(value, low, high, count, count >= LEAST)


def paired_interval(
    ours: Sequence[float],
    theirs: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Interval:
    """The mean of `ours - theirs` over pairs: above zero through its interval, ours is larger."""
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return mean_interval(differences.tolist(), weights, groups, seed, share=False)


def wilson(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z2 = 1.96**2
    middle = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = 1.96 * math.sqrt(value * (1 - value) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def share_interval(value: float, n: int) -> Interval:
    """A share of `n` things that is no mean of theirs (that of the commonest opening)."""
    return Interval(value, *wilson(value, n), n, n >= LEAST) if n else NOTHING


def difference(left: Interval, right: Interval) -> Interval:
    """`left` minus `right`, of two samples that have nothing to do with each other."""
    if None in (left.value, left.low, left.high, right.value, right.low, right.high):
        return NOTHING
    value = left.value - right.value  # type: ignore[operator]
    below = math.hypot(left.value - left.low, right.high - right.value)  # type: ignore[operator]
    above = math.hypot(left.high - left.value, right.value - right.low)  # type: ignore[operator]
    return Interval(value, value - below, value + above, min(left.n, right.n), left.enough and right.enough)


def jackknife_interval(value: float, without: Sequence[float]) -> Interval:
    """`value` of a whole, with its 95 % interval from its values `without` each group in turn."""
    left = np.asarray(without, dtype=float)
    if not left.size:
        return NOTHING
    error = math.sqrt((left.size - 1) / left.size * float(np.square(left - left.mean()).sum()))
    return Interval(value, value - 1.96 * error, value + 1.96 * error, left.size, left.size >= LEAST)
