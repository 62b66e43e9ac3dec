"""How often each persona's dialogues are repeated: asked shares, made feasible under a cap and a floor.

Copies of persona c: r_c = budget x share / n_c, at most `cap`, at least 1 (or 0 where undersampling is
allowed); what a cap cuts off is poured again over the others in proportion to their shares (UniMax). n_c counts
dialogues, or the tokens of their answers: the recipe's unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from persona_dagster.config.recipes import Mix

PARITY = 0.005  # a feasible share this near to the asked one is as asked


class WeightError(ValueError):
    """Weights that no mix can have; the message names the persona and the cure."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One persona: `count` dialogues, `repeats` copies of each on average; shares of the mix, 0 to 1."""

    persona: str
    count: int
    asked: float
    feasible: float
    repeats: float
    note: str = ""


def weigh(counts: Mapping[str, int], mix: Mix, sizes: Mapping[str, int] | None = None) -> list[Weight]:
    """The weights of a mix over `counts` train dialogues by persona, under the recipe's strategy. `sizes`: what the
    dialogues of a persona amount to in the recipe's unit; None: one each."""
    empty = sorted(name for name, count in counts.items() if count < 1)
    if empty or not counts:
        raise WeightError(f"no train dialogues for {', '.join(empty) or 'any persona'}: feed or remove the persona")
    unknown = sorted((set(mix.shares) | set(mix.fixed)) - set(counts))
    if unknown:
        raise WeightError(
            f"the recipe weighs unknown personas {', '.join(unknown)}; known: {', '.join(sorted(counts))}"
        )
    sizes = sizes or counts
    asked = shares(sizes, mix)
    if mix.strategy == "none":
        repeats = dict.fromkeys(counts, 1.0)
    elif mix.strategy == "fixed":
        repeats = {name: float(mix.fixed.get(name, 1)) for name in counts}
    else:
        budget = mix.budget_rows or parity_budget(sizes, asked, mix.cap)
        poured = pour(sizes, asked, budget, cap=mix.cap, floor=0.0 if mix.allow_undersampling else 1.0)
        repeats = {name: poured[name] / size for name, size in sizes.items()}
    total = sum(repeats[name] * size for name, size in sizes.items())
    feasible = {name: repeats[name] * size / total for name, size in sizes.items()}
    return [
        Weight(
            name,
            count,
            asked[name],
            feasible[name],
            repeats[name],
            _note(repeats[name], feasible[name] - asked[name], mix),
        )
        for name, count in sorted(counts.items())
    ]


def shares(counts: Mapping[str, int], mix: Mix) -> dict[str, float]:
    """The asked share of each persona: explicit, or in proportion to count^(1/T); they sum to 1."""
    if mix.shares:
        missing = sorted(set(counts) - set(mix.shares))
        if missing:
            raise WeightError(f"mix.shares leaves out {', '.join(missing)}: give every persona a share")
        raw = {name: mix.shares[name] for name in counts}
    else:
        raw = {name: count ** (1 / mix.temperature) for name, count in counts.items()}
    wrong = sorted(name for name, share in raw.items() if not share > 0)
    if wrong:
        raise WeightError(f"mix.shares of {', '.join(wrong)} must be above 0")
    total = sum(raw.values())
    return {name: share / total for name, share in raw.items()}


def parity_budget(counts: Mapping[str, int], asked: Mapping[str, float], cap: float) -> float:
    """The rows at which the persona that is richest for its share is taken exactly once, and no other more than
    `cap` times: the smallest mix that comes as near to parity as the cap lets it without dropping a dialogue."""
    level = max(count / asked[name] for name, count in counts.items())
    return sum(min(level * asked[name], cap * count) for name, count in counts.items())


def pour(
    counts: Mapping[str, int], asked: Mapping[str, float], budget: float, *, cap: float, floor: float
) -> dict[str, float]:
    """Rows (or tokens) by persona: level x share, held between floor x count and cap x count, summing to the budget.

    The level is the one at which the sum is the budget, clamped to what floors and caps allow. The result
    minimises the sum of rows^2 / share under those bounds.
    """
    low = {name: floor * count for name, count in counts.items()}
    high = {name: cap * count for name, count in counts.items()}
    budget = min(max(budget, sum(low.values())), sum(high.values()))

    def filled(level: float) -> dict[str, float]:
        return {name: min(max(level * asked[name], low[name]), high[name]) for name in counts}

    # The sum grows with the level, linear between the levels at which a persona meets a bound.
    levels = sorted({bound[name] / asked[name] for bound in (low, high) for name in counts})
    below = max((level for level in levels if sum(filled(level).values()) <= budget), default=0.0)
    rows = filled(below)
    free = [name for name in counts if low[name] / asked[name] <= below < high[name] / asked[name]]
    missing = budget - sum(rows.values())
    if free and missing > 0:
        rows = filled(below + missing / sum(asked[name] for name in free))
    return rows


def _note(repeats: float, excess: float, mix: Mix) -> str:
    """Why a persona has not the share that was asked for it; empty where it has, or where only others are bound."""
    if mix.strategy != "dynamic" or abs(excess) <= PARITY:
        return ""
    if excess < 0 and repeats >= mix.cap - 1e-9:
        return f"parity not reached: held at the cap of {mix.cap:g} copies"
    if excess > 0 and not mix.allow_undersampling and repeats <= 1 + 1e-9:
        return "parity not reached: no dialogue falls below one copy"
    return ""
