"""A home with two tiny adapters: random ones, so that base and adapters say different things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_dagster.artifacts import RunCard, Versions
from persona_dagster.chat.adapters import Adapter, find_adapters
from persona_dagster.chat.engine import Engine
from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Base, load_recipe
from persona_dagster.models.adapter import save_weights
from persona_dagster.settings import Settings

TINY = Base(model="tiny:llama", dtype="float32")


def make_adapter(home: Path, recipe: str, seed: int, digest: str, base: Base = TINY, *, alpha: int = 32) -> Path:
    """An adapter as training publishes it, with weights drawn at random instead of learnt; `alpha` is LoRA's."""
    import torch
    from peft import LoraConfig, get_peft_model

    from persona_dagster.models.base_model import load_base

    model, tokenizer = load_base(base, home / "models")
    torch.manual_seed(seed)
    config = LoraConfig(
        r=4, lora_alpha=alpha, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    folder = home / "adapters" / recipe / digest
    save_weights(get_peft_model(model, config), folder, base)
    tokenizer.save_pretrained(folder)
    card = {
        "digest": digest,
        "recipe": {
            **load_recipe(recipe, home / "config", "tiny", "cpu").model_dump(mode="json"),
            "base": base.model_dump(mode="json"),
        },
        "base_model": base.model,
        "base_revision": "made 1",
        "finished_at": "2026-11-21T00:00:00+00:00",
        "mix_digest": "0" * 32,
        "recipe_digest": "1" * 32,
        "eval_loss_before": 6.2,
        "eval_loss_after": 5.1,
        "train_loss": 4.9,
        "steps": 4,
        "seconds": 2.5,
        "versions": {"torch": "2"},
        "troubles": [],
    }
    (folder / "run_card.json").write_text(json.dumps(card), encoding="utf-8")
    Versions(folder.parent, RunCard.FILE).point(folder.name)
    return folder


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    make_adapter(home, "persona_v2", 1, "a" * 32)
    make_adapter(home, "persona_v1", 2, "b" * 32)
    return Settings(home=home, profile="tiny", hardware="cpu")


@pytest.fixture(scope="session")
def personas() -> Personas:
    return load_personas(PACKAGED)


@pytest.fixture(scope="session")
def adapters(settings: Settings) -> dict[str, Adapter]:
    return {adapter.name: adapter for adapter in find_adapters(settings)}


@pytest.fixture(scope="session")
def engine(settings: Settings, personas: Personas) -> Iterator[Engine]:
    engine = Engine(settings.models_dir, personas)
    yield engine
    engine.close()
