"""What a training will take, before it starts: steps, tokens, padding, and the card's memory by parts (vram.py)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_dagster.artifacts import MixManifest, RunCard, Versions
from persona_dagster.config.recipes import Recipe
from persona_dagster.models.base_model import BaseModelError, load_tokenizer
from persona_dagster.models.hardware import cards
from persona_dagster.training.rows import epoch_order, pack, read_rows
from persona_dagster.training.time_and_energy_estimate import Throughput, speed_of
from persona_dagster.training.vram import (
    ERROR,
    ModelShape,
    Vram,
    cures,
    estimate_vram,
    known_shape,
    largest_batch,
    largest_length,
)


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """`steps` is exact: what `trainer.state.max_steps` will be. `rule_of_thumb` is ceil(N·epochs / effective batch)."""

    rows: int
    effective_batch: int  # rows that one optimizer step sees
    steps_per_epoch: int
    steps: int
    rule_of_thumb: int
    warmup_steps: int
    tokens: int  # over the whole training, padding excluded
    padding_share: float  # of the positions computed
    longest: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(recipe: Recipe, lengths: Sequence[int], pair_ids: Sequence[str] | None = None) -> TrainingPlan:
    """The plan for rows of these lengths, in tokens, after dropping and cutting.

    Rounds as the trainer does: a process sees ceil(batches / processes) batches, an epoch takes
    ceil(those / accumulation) steps, the whole ceil(epochs · steps of an epoch), or `max_steps` if given.
    """
    training = recipe.training
    count, longest = len(lengths), max(lengths, default=0)
    if training.packing:
        packs = pack(lengths, training.max_length)
        lengths, pair_ids = [sum(lengths[index] for index in one) for one in packs], [str(one) for one in packs]
    rows = len(lengths)
    effective = training.batch_size * training.accumulation * training.processes
    seen = math.ceil(math.ceil(rows / training.batch_size) / training.processes)
    per_epoch = max(math.ceil(seen / training.accumulation), 1)
    steps = training.max_steps or math.ceil(training.epochs * per_epoch)
    ids = pair_ids or [str(index) for index in range(rows)]
    order = epoch_order(ids, effective, training.seed, 0)
    positions = sum(
        max(batch) * len(batch)
        for start in range(0, rows, training.batch_size)
        if (batch := [lengths[index] for index in order[start : start + training.batch_size]])
    )
    return TrainingPlan(
        rows=count,
        effective_batch=effective,
        steps_per_epoch=per_epoch,
        steps=steps,
        rule_of_thumb=math.ceil(rows * training.epochs / effective),
        warmup_steps=training.warmup_steps,
        tokens=round(sum(lengths) * steps / per_epoch),
        padding_share=0.0
        if training.padding_free or training.packing or not positions
        else 1 - sum(lengths) / positions,
        longest=longest,
    )


@dataclass(frozen=True, slots=True)
class RecipePlan:
    """A recipe's plan on this machine. `vram` is None where only the Hub knows the base model's shape."""

    recipe: Recipe
    plan: TrainingPlan
    rows_are: str  # where the rows' number and lengths come from
    shape: ModelShape | None
    vram: Vram | None
    card_gib: float | None  # free on the freest visible card; None: no card here
    speed: Throughput | None = None

    def markdown(self) -> str:
        """The plan as Markdown tables, with a cure where it does not fit."""
        plan, training = self.plan, self.recipe.training
        unit = "packs" if training.packing else "rows"
        lines = [
            f"## {self.recipe.title}",
            "",
            f"{self.recipe.base.model} by {self.recipe.backend}, {self.rows_are}.",
            "",
            "| | |",
            "|---|---|",
            f"| rows | {plan.rows} |",
            f"| {unit} a step | {plan.effective_batch} = {training.batch_size} × {training.accumulation} "
            f"× {training.processes} process(es) |",
            f"| steps | {plan.steps} ({plan.steps_per_epoch} an epoch × {training.epochs:g}) |",
            f"| rule of thumb, ceil(N × epochs / rows a step) | {plan.rule_of_thumb} |",
            f"| warm-up steps | {plan.warmup_steps} |",
            f"| tokens | {plan.tokens:,}, and {plan.padding_share:.0%} padding |",
            f"| longest row | {plan.longest} tokens of {training.max_length} |",
        ]
        return "\n".join([*lines, *self._time(), *self._memory()])

    def _time(self) -> list[str]:
        if self.speed is None:
            return []
        seconds = self.plan.tokens / self.speed.tokens_per_s
        energy = f", {self.speed.watts * seconds / 3.6e6:.2f} kWh" if self.speed.watts else ""
        rate = f"{self.plan.steps / seconds:.3g} steps/s, {self.speed.tokens_per_s:,.0f} tokens/s"
        return [f"| time | {seconds / 3600:.2f} h{energy}: {rate} ({self.speed.source}) |"]

    def _memory(self) -> list[str]:
        if not self.recipe.requires_cuda:
            return ["", "It trains on the CPU: no card is needed."]
        if self.vram is None or self.shape is None:
            return ["", f"Memory: the shape of {self.recipe.base.model} is not known here."]
        parts = self.vram.as_dict()
        lines = ["", "| memory of the card | GiB |", "|---|---|"]
        lines += [f"| {part} | {size:.2f} |" for part, size in parts.items() if part != "total"]
        low, high = self.vram.band
        lines += [f"| **total** | **{self.vram.total:.2f}** ({low:.1f} to {high:.1f}, ±{ERROR:.0%}) |", ""]
        budget = min(size for size in (self.card_gib, self.recipe.vram_gib, 1e6) if size)
        found = f"The freest card here has {self.card_gib:.1f} GiB free." if self.card_gib else "There is no card here."
        if budget == 1e6:
            return [*lines, found]
        fits = (
            f"Within {budget:.1f} GiB fit at most {largest_batch(self.recipe, self.shape, budget)} rows of "
            f"{self.recipe.training.max_length} tokens, or {self.recipe.training.batch_size} rows of "
            f"{largest_length(self.recipe, self.shape, budget)}."
        )
        wanted = cures(self.recipe, self.shape, budget)
        return [
            *lines,
            f"{found} {fits}",
            *([f"**It does not fit.** Change one: {'; '.join(wanted)}."] if wanted else []),
        ]


def plan_recipe(recipe: Recipe, mix_folder: Path, models_dir: Path, adapters: Path, card: str = "") -> RecipePlan:
    """The plan over the recipe's latest mix (`mix_folder/latest` names it); by the recipe's sizes without one.

    `adapters` holds the recipe's earlier trainings: the newest tells how fast the next will be. `card` plans for a card
    by its name in the place of the one that is here.
    """
    shape = known_shape(recipe.base)
    here = cards()
    plan, rows_are = _plan_rows(recipe, mix_folder, models_dir)
    newest = Versions(adapters, RunCard.FILE).latest()
    name = card or (here[0].name if here else "")
    length = plan.tokens // max(1, plan.steps * plan.effective_batch)
    speed = speed_of(recipe, shape, length, name, RunCard.read(newest) if newest else None)
    free = max((one.free_gib for one in here), default=None)
    return RecipePlan(recipe, plan, rows_are, shape, estimate_vram(recipe, shape) if shape else None, free, speed)


def _plan_rows(recipe: Recipe, mix_folder: Path, models_dir: Path) -> tuple[TrainingPlan, str]:
    mix = Versions(mix_folder, MixManifest.FILE).latest()
    longest = recipe.training.max_length
    if mix is None:
        count = recipe.mix.max_train_rows or recipe.mix.budget_rows or 1000
        return make_plan(recipe, [longest] * count), f"no mix yet: {count} rows of {longest} tokens assumed"
    try:
        tokenizer = load_tokenizer(recipe.base, models_dir)
    except BaseModelError:
        count = len((mix / "train.jsonl").read_text(encoding="utf-8").splitlines())
        return make_plan(recipe, [longest] * count), f"mix {mix.name}, its tokenizer is out of reach: full rows assumed"
    rows = read_rows(mix, "train", tokenizer, longest)
    where = f"mix {mix.name}: {len(rows.dropped)} rows dropped, {len(rows.cut)} cut"
    return make_plan(recipe, rows.lengths, [row.pair_id for row in rows.rows]), where
