"""The `unsloth` backend: FastLanguageModel in 4 bits, its own gradient checkpointing, a fused loss.

Unsloth patches transformers, PEFT and TRL for the whole process: import it in the trainer's process alone, and
before them. Without a card its CPU backend (from 2026.10.9) runs the same path, slowly.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from persona_dagster.config.recipes import Recipe
from persona_dagster.models.base_model import BaseModelError, load_tokenizer, resolve_base
from persona_dagster.models.hardware import cards, rank_device
from persona_dagster.training.trainer import compute_dtype

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def prepare() -> None:
    """Imports Unsloth, before anything that it patches is imported.

    Raises:
        BaseModelError: Unsloth is not installed.
    """
    if not cards():
        os.environ["UNSLOTH_FORCE_CPU"] = "1"
    try:
        import unsloth  # noqa: F401
    except ImportError as error:
        raise BaseModelError(
            f"backend unsloth cannot be imported ({error}): pip install --no-deps -r requirements-gpu.txt, or set "
            "backend: trl in the recipe"
        ) from error


def load(recipe: Recipe, models_dir: Path) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The base with fresh LoRA weights, and the tokenizer as all of us load it (Unsloth may change its PAD)."""
    import torch
    from unsloth import FastLanguageModel

    training, lora = recipe.training, recipe.lora
    here = cards()
    base, _ = FastLanguageModel.from_pretrained(
        model_name=resolve_base(recipe.base, models_dir),
        revision=recipe.base.hub_revision,
        max_seq_length=training.max_length,
        dtype=getattr(torch, compute_dtype(recipe)) if here else None,
        load_in_4bit=recipe.quantisation.scheme == "nf4",
        **({"device_map": {"": rank_device()}} if here else {}),
    )
    layers = base.config.num_hidden_layers
    model = FastLanguageModel.get_peft_model(
        base,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        layers_to_transform=list(range(layers - lora.last_layers, layers)) if lora.last_layers else None,
        bias="none",
        use_rslora=lora.rslora,
        use_gradient_checkpointing=_checkpointing(recipe),
        random_state=training.seed,
    )
    tokenizer = load_tokenizer(recipe.base, models_dir)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def resume(recipe: Recipe, model: PeftModel) -> None:
    """Back to training after the model was asked something, gradient checkpointing armed again."""
    from unsloth import FastLanguageModel

    FastLanguageModel.for_training(model, use_gradient_checkpointing=_checkpointing(recipe))


def _checkpointing(recipe: Recipe) -> Literal["unsloth", False]:
    return "unsloth" if recipe.training.gradient_checkpointing else False


def arguments(recipe: Recipe) -> dict[str, Any]:
    """What this backend adds to SFTConfig: nothing, its loss is fused already."""
    return {}


def shortcut(recipe: Recipe, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> AbstractContextManager[None]:
    """None: Unsloth's own kernels stand in the way of ours."""
    return nullcontext()
