"""When an adapter follows its mix by itself: the recipe's policy, weighed against what the adapter was made of."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from persona_dagster.artifacts import RunCard
from persona_dagster.config.recipes import Recipe
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.records import FORGOTTEN
from persona_dagster.training.job_spec import recipe_digest


@dataclass(frozen=True)
class Decision:
    """Whether to train now, why, and a key that is the same for the same reason."""

    train: bool
    reason: str
    key: str = ""


def decide(project: ProjectResource, name: str) -> Decision:
    """The policy's answer for one recipe. A recipe that was never trained waits for a person."""
    mix, adapter, resolved = project.mixes(name).latest(), project.adapters(name).latest(), project.resolved(name)
    if mix is None or adapter is None or resolved is None:
        missing = {"no mix yet": mix, "never trained: materialise lora_adapter once": adapter}
        return Decision(False, next((why for why, found in missing.items() if found is None), "no recipe_config yet"))
    recipe = resolved.recipe
    card = RunCard.read(adapter)
    # With the base's revision as the training found it: this process may stand on a machine that lacks the base.
    digest = recipe_digest(recipe, card.base_revision)
    key = f"{mix.name}:{digest}:{adapter.name}"
    if (adapter / FORGOTTEN).exists():
        if card.mix_digest == mix.name:  # training now would return the very adapter
            return Decision(False, "rows were forgotten; waits for the mix without them")
        return Decision(True, "the adapter saw rows that were forgotten", key)
    if card.recipe_digest != digest:
        return Decision(True, "the recipe was edited", key)
    if card.mix_digest == mix.name:
        return Decision(False, "trained on the present mix")
    return _by_window(
        recipe,
        card,
        changed_share(mix, project.mixes(name, card.mix_digest).folder / card.mix_digest),
        key,
        project.now(),
    )


def _by_window(recipe: Recipe, card: RunCard, changed: float, key: str, now: datetime) -> Decision:
    policy = recipe.retrain
    due = datetime.fromisoformat(card.finished_at) + timedelta(days=policy.window_days)
    if changed < policy.min_changed_share:
        return Decision(False, f"{changed:.1%} of train rows changed, under {policy.min_changed_share:.0%}")
    if now < due:
        return Decision(False, f"{changed:.1%} of train rows changed; the window opens {due:%Y-%m-%d}")
    return Decision(True, f"{changed:.1%} of train rows changed, and the window has passed", key)


def changed_share(new: Path, old: Path) -> float:
    """Share of train dialogues that stand in only one of two mixes; 1 where the old mix is gone."""
    if not (old / "provenance.parquet").is_file():
        return 1.0
    before, after = (
        set(pl.read_parquet(folder / "provenance.parquet").filter(pl.col("split") == "train")["pair_id"])
        for folder in (old, new)
    )
    return len(before ^ after) / max(1, len(before | after))
