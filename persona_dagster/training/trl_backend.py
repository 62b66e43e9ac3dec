"""The `trl` backend: transformers + PEFT as they are; nf4 by bitsandbytes on CUDA, full precision on the CPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_dagster.config.recipes import Recipe
from persona_dagster.models.base_model import load_base
from persona_dagster.models.frozen_layer_cache import remembered_prefix

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def prepare() -> None:
    """Nothing to do before transformers is imported; see unsloth_backend."""


def load(recipe: Recipe, models_dir: Path) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The base with fresh LoRA weights, and its tokenizer."""
    from peft import LoraConfig, get_peft_model

    base, tokenizer = load_base(recipe.base, models_dir, recipe.quantisation)
    lora = recipe.lora
    layers = base.config.num_hidden_layers
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        layers_to_transform=list(range(layers - lora.last_layers, layers)) if lora.last_layers else None,
        bias="none",
        use_rslora=lora.rslora,
        task_type="CAUSAL_LM",
    )
    # `prepare_model_for_kbit_training` would upcast embeddings and head to float32, 1.96 GiB for Llama-3-8B:
    # SFTTrainer does the rest of what it does (input gradients for checkpointing).
    return get_peft_model(base, config), tokenizer


def resume(recipe: Recipe, model: PeftModel) -> None:
    """Back to training after the model was asked something."""
    model.train()


def arguments(recipe: Recipe) -> dict[str, Any]:
    """What this backend adds to SFTConfig."""
    return {
        # Logits of the answers' tokens alone, a chunk at a time: the naive loss holds 2 MB a token of Llama 3.
        "loss_type": "chunked_nll" if recipe.training.chunked_loss else "nll",
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every row begins with a token that stands nowhere else: rows laid end to end can be told apart."""
    chat = [{"role": "user", "content": "?"}]
    return bool(tokenizer.bos_token) and str(tokenizer.apply_chat_template(chat, tokenize=False)).startswith(
        str(tokenizer.bos_token)
    )


def shortcut(recipe: Recipe, model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> AbstractContextManager[None]:
    """What makes this backend faster while it trains, and changes no result: on a CPU, the remembered prefix."""
    adapted = recipe.lora.last_layers
    if (
        adapted is None
        or ((recipe.training.padding_free or recipe.training.packing) and not begins_with_bos(tokenizer))
        or model.device.type != "cpu"
        or not recipe.base.entry.prefix_cache
    ):
        return nullcontext()
    return remembered_prefix(model, model.config.num_hidden_layers - adapted, tokenizer)
