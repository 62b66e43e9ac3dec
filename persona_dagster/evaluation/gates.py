"""The verdict: each gate of a recipe against what was measured. Green, amber, red.

Green passes. Red fails. Amber is a number that proves nothing: too few samples, or an interval that holds the
threshold. A report is as good as its worst gate; only `hub_release` acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from persona_dagster.config.recipes import Gates
from persona_dagster.evaluation.bootstrap import Interval

Verdict = Literal["green", "amber", "red"]
ORDER: tuple[Verdict, ...] = ("green", "amber", "red")


@dataclass(frozen=True)
class Gate:
    """One judged number. `threshold` is the recipe's; `bound` says on which side of it green lies."""

    name: str
    title: str
    verdict: Verdict
    value: float | None
    threshold: float
    bound: Literal["at least", "at most", "above"]
    low: float | None
    high: float | None
    n: int
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def at_most(name: str, title: str, measured: Interval, threshold: float) -> Gate:
    """Green when the value is no larger than the threshold; amber where too little was measured."""
    if measured.value is None:
        return _gate(name, title, "amber", measured, threshold, "at most", "not measured")
    if measured.value > threshold:
        verdict: Verdict = "red" if measured.enough else "amber"
        return _gate(name, title, verdict, measured, threshold, "at most", "over the threshold")
    if not measured.enough:
        return _gate(name, title, "amber", measured, threshold, "at most", f"only {measured.n} samples")
    return _gate(name, title, "green", measured, threshold, "at most", "within the threshold")


def above(name: str, title: str, measured: Interval, threshold: float) -> Gate:
    """Green when the whole interval lies above the threshold; red when the value does not even."""
    if measured.value is None or measured.low is None:
        return _gate(name, title, "amber", measured, threshold, "above", "not measured")
    if measured.value <= threshold:
        return _gate(name, title, "red" if measured.enough else "amber", measured, threshold, "above", "no gain")
    if not measured.enough:
        return _gate(name, title, "amber", measured, threshold, "above", f"only {measured.n} samples")
    if measured.low <= threshold:
        return _gate(name, title, "amber", measured, threshold, "above", "the interval holds the threshold")
    return _gate(name, title, "green", measured, threshold, "above", "the whole interval lies above")


def at_least(name: str, title: str, measured: Interval, threshold: float) -> Gate:
    """Green when the value is no smaller than the threshold."""
    if measured.value is None:
        return _gate(name, title, "amber", measured, threshold, "at least", "not measured")
    good = measured.value >= threshold
    return _gate(name, title, "green" if good else "red", measured, threshold, "at least", "reached" if good else "too low")


def _gate(name: str, title: str, verdict: Verdict, measured: Interval, threshold: float, bound: Any, why: str) -> Gate:
    return Gate(name, title, verdict, measured.value, threshold, bound, measured.low, measured.high, measured.n, why)


Test = Callable[[str, str, Interval, float], Gate]

# Field of the recipe's gates: title in the report, how it is judged. Measured numbers carry the same names.
GATES: dict[str, tuple[str, Test]] = {
    "min_fidelity_gain": ("Speaks in the asked voice more often than the base", above),
    "min_loss_gain": ("Finds human answers likelier than the base does", above),
    "max_train_test_gap": ("Test loss stays near train loss", at_most),
    "min_train_loss": ("Train loss is not suspiciously low", at_least),
    "max_verbatim": ("Does not recite the training text", at_most),
    "max_residue": ("No forum residue, tags or personal data", at_most),
    "max_repetition": ("Does not repeat itself", at_most),
    "max_broken": ("Answers are whole", at_most),
    "max_identical_openings": ("Answers do not all begin alike", at_most),
    "max_forgetting": ("Still knows what the base knew", at_most),
}


def judge_gates(measured: Mapping[str, Interval], gates: Gates) -> list[Gate]:
    """Every gate for which the recipe has a threshold."""
    thresholds = gates.model_dump()
    return [
        test(name, title, measured[name], thresholds[name])
        for name, (title, test) in GATES.items()
        if thresholds[name] is not None
    ]


def verdict(gates: list[Gate]) -> Verdict:
    """The worst of the gates; green without any."""
    return max((gate.verdict for gate in gates), key=ORDER.index, default="green")
