"""What a training will take, before it starts: steps, tokens, padding. VRAM is in vram.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from persona_dagster.config.recipes import Recipe
from persona_dagster.training.rows import epoch_order


@dataclass(frozen=True, slots=True)
class Plan:
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


def make_plan(recipe: Recipe, lengths: Sequence[int], pair_ids: Sequence[str] | None = None) -> Plan:
    """The plan for rows of these lengths, in tokens, after dropping and cutting.

    Rounds as the trainer does: a process sees ceil(batches / processes) batches, an epoch takes
    ceil(those / accumulation) steps, the whole ceil(epochs · steps of an epoch), or `max_steps` if given.
    """
    training = recipe.training
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
    return Plan(
        rows=rows,
        effective_batch=effective,
        steps_per_epoch=per_epoch,
        steps=steps,
        rule_of_thumb=math.ceil(rows * training.epochs / effective),
        warmup_steps=training.warmup_steps,
        tokens=round(sum(lengths) * steps / per_epoch),
        padding_share=1 - sum(lengths) / positions if positions else 0.0,
        longest=max(lengths, default=0),
    )
