"""How sure a number is: percentile bootstrap intervals of means and of paired differences.

Rows are resampled in groups (answers to one prompt hang together), base and adapter in pairs. What is no mean (a
count of different n-grams, which any resample lowers) has a jackknife. Source: Efron & Tibshirani 1993, chapters 13
and 11; for paired system comparison, Koehn 2004.
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
) -> Interval:
    """The (weighted) mean of `values`, resampled by group; one group a value by default."""
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
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high), count, count >= LEAST)


def paired_interval(
    ours: Sequence[float],
    theirs: Sequence[float],
    weights: Sequence[float] | None = None,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Interval:
    """The mean of `ours - theirs` over pairs: above zero through its interval, ours is larger."""
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    return mean_interval(differences.tolist(), weights, groups, seed)


def jackknife_interval(value: float, without: Sequence[float]) -> Interval:
    """`value` of a whole, with its 95 % interval from its values `without` each group in turn."""
    left = np.asarray(without, dtype=float)
    if not left.size:
        return NOTHING
    error = math.sqrt((left.size - 1) / left.size * float(np.square(left - left.mean()).sum()))
    return Interval(value, value - 1.96 * error, value + 1.96 * error, left.size, left.size >= LEAST)
