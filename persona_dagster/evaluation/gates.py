"""The verdict: each gate of a recipe against what was measured, by one rule.

Green: the whole 95 % interval lies on the good side of the threshold. Red: it lies on the bad side. Amber: it holds
the threshold, or rests on too few samples. A report is as good as its worst gate; only `hub_release` acts on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from persona_dagster.artifacts import Metrics
from persona_dagster.config.recipes import Gates
from persona_dagster.evaluation.bootstrap import Interval

Verdict = Literal["green", "amber", "red"]
Bound = Literal["at least", "at most", "above"]
ORDER: tuple[Verdict, ...] = ("green", "amber", "red")

# Field of the recipe's gates: title in the report, and on which side of the threshold green lies. Measured numbers
# carry the same names.
GATES: dict[str, tuple[str, Bound]] = {
    "min_coherent": ("Its answers are language", "at least"),
    "min_words": ("Its characters make words (people: 1)", "at least"),
    "min_relevance": ("Its answers are about their questions (people: 1)", "at least"),
    "min_preference": ("Its answers are preferred to those of its base with examples", "above"),
    "min_judge_accuracy": ("The judge of voices can be believed", "at least"),
    "min_fidelity_gain": ("Carries the asked voice more clearly than the base", "above"),
    "min_voice_over_chance": ("Its voice follows what is asked, beyond chance", "above"),
    "min_tag_obedience": ("Obeys its tag even against the topic", "above"),
    "min_loss_gain": ("Finds human answers likelier than the base does", "above"),
    "max_train_test_gap": ("Test loss stays near train loss", "at most"),
    "min_train_loss": ("Train loss is not suspiciously low", "at least"),
    "max_verbatim": ("Does not recite the training text", "at most"),
    "max_residue": ("No forum residue, tags or personal data", "at most"),
    "max_repetition": ("Does not repeat itself", "at most"),
    "max_broken": ("Answers are whole", "at most"),
    "max_identical_openings": ("Answers do not all begin alike", "at most"),
    "max_forgetting": ("Still knows what the base knew", "at most"),
}


@dataclass(frozen=True)
class Gate:
    """One judged number: `value`, its interval, the recipe's `threshold`, and why the verdict is what it is."""

    name: str
    title: str
    verdict: Verdict
    why: str
    bound: Bound
    threshold: float
    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(measured: Interval, threshold: float, bound: Bound) -> tuple[Verdict, str]:
    """The verdict on one number, and why."""
    if measured.value is None:
        return "amber", "not measured"
    if not isfinite(measured.value):
        return "red", "not a number: the adapter computes nonsense"
    if measured.low is None or measured.high is None or not measured.enough:
        return "amber", "too few samples to judge"
    good, bad = {
        "at most": (measured.high <= threshold, measured.low > threshold),
        "at least": (measured.low >= threshold, measured.high < threshold),
        "above": (measured.low > threshold, measured.high <= threshold),
    }[bound]
    if good:
        return "green", "the whole interval lies on the good side"
    return ("red", "the whole interval lies on the bad side") if bad else ("amber", "the interval holds the threshold")


def judge_gates(measured: Mapping[str, Interval], gates: Gates) -> list[Gate]:
    """Every gate for which the recipe has a threshold."""
    judged = []
    for name, threshold in gates.model_dump().items():
        if threshold is None:
            continue
        title, bound = GATES[name]
        one = measured[name]
        colour, why = judge(one, threshold, bound)
        judged.append(Gate(name, title, colour, why, bound, threshold, one.value, one.low, one.high, one.n))
    return judged


def verdict(gates: list[Gate]) -> Verdict:
    """The worst of the gates; green without any."""
    return max((gate.verdict for gate in gates), key=ORDER.index, default="green")


def standing(report: Metrics, wanted: Gates) -> dict[str, dict[str, Any]]:
    """Every gate as a stored report (metrics.json) has it, by name. Amber where the recipe wants one that the report
    does not know, since it is older; green where the recipe sets no threshold."""
    judged = {gate["name"]: gate for gate in report.gates}
    missing = {"verdict": "amber", "why": "not in the report, which is older than the gate: materialise eval_report"}
    unwanted = {"verdict": "green", "why": "not judged: the recipe sets no threshold"}
    limits = wanted.model_dump()
    return {name: judged.get(name) or (unwanted if limits[name] is None else missing) for name in GATES}
