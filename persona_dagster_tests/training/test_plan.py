"""The plan is exact: the trainer itself is asked, over random cases, how many steps it will make."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from persona_dagster.artifacts import RunCard
from persona_dagster.config.recipes import Base, Recipe, load_recipe
from persona_dagster.training.plan import make_plan, plan_recipe
from persona_dagster.training.rows import EncodedRow
from persona_dagster.training.time_and_energy_estimate import flops_a_token, speed_of
from persona_dagster.training.trainer import make_trainer
from persona_dagster.training.trl_backend import load, prepare
from persona_dagster.training.vram import known_shape
from persona_dagster_tests.training.conftest import with_training


def tiny(**training: object) -> Recipe:
    return with_training(load_recipe("persona_v2", Path("nowhere"), "tiny", "cpu"), **training)


def test_the_plan_is_what_the_trainer_makes_of_it(models_dir: Path, tmp_path: Path, soak: bool) -> None:
    """`state.max_steps` after a first step, over random rows, batches, accumulations and epochs."""
    prepare()
    model, tokenizer = load(tiny(), models_dir)
    draw = random.Random(5)
    for case in range(60 if soak else 12):
        count, batch, accumulation = draw.randint(1, 23), draw.randint(1, 5), draw.randint(1, 4)
        epochs = draw.choice([1, 2, 3, 10, 0.5, 1.5, 2.25])
        recipe = tiny(batch_size=batch, accumulation=accumulation, epochs=epochs, learning_rate=1e-9)
        rows = [EncodedRow(f"r{n}-0", f"r{n}", "p", [4, 5, 6, 7], [-100, 5, 6, 7]) for n in range(count)]
        trainer = make_trainer(recipe, model, tokenizer, rows, folder=tmp_path, callbacks=[_stop_after_one()], extra={})
        trainer.train()
        plan = make_plan(recipe, [4] * count)
        assert plan.steps == trainer.state.max_steps, (case, count, batch, accumulation, epochs)


def _stop_after_one():
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_training_stop, control.should_save = True, False

    return Stop()


@pytest.mark.parametrize(
    "rows, processes, steps",
    [
        (1000, 1, 375),  # the rule of thumb is exact where all divides
        (1001, 1, 378),  # each epoch rounds up by itself: 126, where the rule says 376
        (1000, 2, 189),
        (7, 1, 3),
    ],
)
def test_rounding_by_epoch(rows: int, processes: int, steps: int) -> None:
    recipe = tiny(epochs=3, batch_size=2, accumulation=4, processes=processes)
    assert make_plan(recipe, [10] * rows).steps == steps


def test_max_steps_wins_and_tokens_follow() -> None:
    plan = make_plan(tiny(epochs=3, max_steps=5, batch_size=4, accumulation=1), [10] * 40)
    assert (plan.steps, plan.steps_per_epoch, plan.tokens, plan.padding_share) == (5, 10, 200, 0.0)


def test_padding_is_counted_over_batches() -> None:
    plan = make_plan(tiny(batch_size=2, accumulation=1, epochs=1), [10, 30])
    assert plan.padding_share == pytest.approx(1 - 40 / 60) and plan.longest == 30


def test_the_plan_of_a_mix_and_of_none_yet(mix_dir: Path, models_dir: Path, tmp_path: Path) -> None:
    recipe = tiny(epochs=3, batch_size=4, accumulation=1)
    assert "no mix yet: 16 rows" in plan_recipe(recipe, tmp_path / "nowhere", models_dir, tmp_path).markdown()
    (tmp_path / "latest").write_text(mix_dir.name + "\n", encoding="utf-8")
    planned = plan_recipe(recipe, tmp_path, models_dir, tmp_path / "none")
    assert planned.plan.rows == 12 and planned.plan.steps == 9
    assert "| steps | 9 (3 an epoch × 3) |" in planned.markdown() and "CPU" in planned.markdown()


def test_the_plan_for_a_card_names_parts_and_cures(tmp_path: Path) -> None:
    live = load_recipe("persona_v2", tmp_path, "live", "gpu_12gb")
    text = plan_recipe(live.model_copy(update={"vram_gib": 7.5}), tmp_path, tmp_path, tmp_path).markdown()
    assert "| embeddings | 1.96 |" in text and "**It does not fit.**" in text and "training.batch_size: " in text
    assert "It does not fit" not in plan_recipe(live, tmp_path, tmp_path, tmp_path).markdown()


def test_packs_are_what_steps_are_made_of() -> None:
    packed = tiny(packing=True, max_length=100, batch_size=1, accumulation=1, epochs=2)
    plan = make_plan(packed, [60, 40, 30, 70, 95])
    assert (plan.steps, plan.rows, plan.padding_share, plan.longest, plan.tokens) == (6, 5, 0.0, 95, 590)


def test_operations_and_hours(tmp_path: Path) -> None:
    """Operations a token of Llama-3-8B by another's account (31.9 G at 2,048 tokens, 46.5 G with checkpointing); hours
    and energy follow, until a training of this recipe on this card is there."""
    live = load_recipe("persona_v2", tmp_path, "live", "gpu_12gb")
    llama = known_shape(Base(model="llama3-8b"))
    assert llama is not None
    plain = with_training(live, gradient_checkpointing=False)
    assert flops_a_token(plain, llama, 2048) == pytest.approx(31.9e9, rel=0.02)
    assert flops_a_token(live, llama, 2048) == pytest.approx(46.5e9, rel=0.02)

    text = plan_recipe(live, tmp_path, tmp_path, tmp_path, "NVIDIA A100-SXM4-80GB").markdown()
    assert "| time | " in text and " kWh: " in text and "by arithmetic for A100" in text
    assert "| time |" not in plan_recipe(live, tmp_path, tmp_path, tmp_path, "Quadro of long ago").markdown()
    run = {"tokens_per_s": 100.0, "energy_wh": 50.0, "train_seconds": 3600.0, "machine": {"cards": ["NVIDIA A100"]}}
    card = RunCard(digest="one", recipe=live.model_dump(mode="json"), finished_at="2026-11-29", **run)
    measured = speed_of(live, llama, 2048, "NVIDIA A100", card)
    assert measured is not None and measured.tokens_per_s == 100 and measured.watts == 50
    for other in (with_training(live, batch_size=7), live.model_copy(update={"backend": "trl"})):
        arithmetic = speed_of(other, llama, 2048, "NVIDIA A100", card)
        assert arithmetic is not None and "arithmetic" in arithmetic.source, "another recipe's speed"
