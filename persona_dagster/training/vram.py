"""How much memory of a card a training takes, by parts, before it starts; and what to change where it cannot fit.

`trl` is counted from what each operation of transformers and PEFT keeps for its backward pass, and is held against
torch's account of the real modules (test_memory_account.py). `unsloth`, whose kernels no account can follow, is
calibrated on its published table for Llama-3-8B (rank 32, nf4): 7.37 GiB and 0.217 MiB a token.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from persona_dagster.config.base_models import Base, Folder, Hub, Shape
from persona_dagster.config.recipes import Recipe
from persona_dagster.models.hardware import GIB

ERROR = 0.10  # relative, of the total: what the estimate is held to on a real card

_NF4_BYTES = 0.5159  # a weight: 4 bits, its block's constant (64 weights), doubly quantised
_NF4_SINGLE_BYTES = 0.5625  # with float32 constants
_CHUNK_TOKENS = 256  # TRL's chunked loss
# A token and vocabulary entry, at the peak of the loss. Whole, in the backward pass: log-probabilities, the gradient
# that arrives and the one that leaves, in float32. By chunks: logits and three more of their size, for TRL's entropy.
_WHOLE_BYTES, _CHUNK_BYTES = 12, 16
# CUDA context and allocator; with unsloth also whatever its table has beyond the other parts.
_CONTEXT_GIB = {"unsloth": 1.28, "trl": 1.65}
_GEMMA_NORMS, _NORMS = 4, 2  # of a layer


class ModelShape(Shape):
    """The shape of a Llama-like model, with what its kind adds to it."""

    norms: int = _NORMS  # of a layer
    head_norms: bool = False  # queries and keys are normalised, head by head

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """From a transformers config; of a model that also sees, the part that reads."""
        config = config.get_text_config()
        norms, head_norms = norms_of(config.model_type)
        return cls(
            norms=norms,
            head_norms=head_norms,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            vocabulary=config.vocab_size,
            context=config.max_position_embeddings,
            tied=config.tie_word_embeddings,
            head_dim=getattr(config, "head_dim", None),
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(in, out) of a layer's linear maps by name."""
        head = self.head_dim or self.hidden // self.heads
        wide, narrow = head * self.heads, head * self.kv_heads
        return {
            "q_proj": (self.hidden, wide),
            "k_proj": (self.hidden, narrow),
            "v_proj": (self.hidden, narrow),
            "o_proj": (wide, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_weights(self) -> int:
        return self.layers * sum(rows * columns for rows, columns in self.linears.values())

    @property
    def embedding_weights(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)


def norms_of(model_type: str) -> tuple[int, bool]:
    """(norms of a layer, whether queries and keys have their own) of transformers' `model_type`."""
    gemma = model_type.startswith(("gemma2", "gemma3"))
    return _GEMMA_NORMS if gemma else _NORMS, model_type.startswith(("qwen3", "gemma3"))


def known_shape(base: Base) -> ModelShape | None:
    """The shape of a base, from its entry or any config.json; None where only the Hub knows, and is out of reach."""
    entry = base.entry
    if entry.shape is not None:
        norms, head_norms = norms_of(entry.architecture)
        return ModelShape(**entry.shape.model_dump(), norms=norms, head_norms=head_norms)
    config = _config_file(base)
    if config is None:
        return None
    from transformers import AutoConfig

    return ModelShape.of(AutoConfig.from_pretrained(config))


def _config_file(base: Base) -> Path | None:
    """Where the base's config.json lies: its folder, the Hub's cache, else fetched; None without a network."""
    source = base.entry.source
    if isinstance(source, Folder):
        path = source.folder / "config.json"
        return path if path.is_file() else None
    if not isinstance(source, Hub) or find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(source.hub, "config.json", revision=base.hub_revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(source.hub, "config.json", revision=base.hub_revision, etag_timeout=3))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None


@dataclass(frozen=True, slots=True)
class Vram:
    """GiB by part, of one card."""

    weights: float
    embeddings: float
    lora: float  # parameters and gradients
    optimizer: float
    activations: float
    logits: float
    context: float

    @property
    def total(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))

    @property
    def band(self) -> tuple[float, float]:
        """The total, give or take its error."""
        return self.total * (1 - ERROR), self.total * (1 + ERROR)

    def as_dict(self) -> dict[str, float]:
        return {**asdict(self), "total": self.total}


def lora_weights(recipe: Recipe, shape: ModelShape) -> int:
    layers = min(recipe.lora.last_layers or shape.layers, shape.layers)
    return layers * sum(
        recipe.lora.r * sum(shape.linears[name]) for name in recipe.lora.targets if name in shape.linears
    )


def estimate_vram(
    recipe: Recipe, shape: ModelShape, *, batch_size: int | None = None, length: int | None = None
) -> Vram:
    """The peak of one card for micro-batches of `batch_size` × `length` tokens; the recipe's own where not given."""
    training = recipe.training
    tokens = (batch_size or training.batch_size) * (length or training.max_length)
    half = 4 if recipe.base.dtype == "float32" else 2
    nf4 = _NF4_BYTES if recipe.quantisation.double_quant else _NF4_SINGLE_BYTES
    quantised = recipe.quantisation.scheme == "nf4"
    lora = lora_weights(recipe, shape)
    moments = 2 if training.optimizer == "adamw_8bit" else 8
    learnt = 2 * 4 + half * (half < 4)  # float32, gradients, and autocast's copy in half precision
    learnt += 4 * (training.processes > 1)  # torch's DDP gathers gradients in buckets of their whole size
    unsloth = recipe.backend == "unsloth"
    if unsloth:
        activations = tokens * _unsloth_activation_bytes(shape, half, training.gradient_checkpointing)
        logits = 0.0  # never whole: its loss is fused
    else:
        activations, logits = _peak_bytes(recipe, shape, tokens, length or training.max_length)
    return Vram(
        weights=shape.linear_weights * (nf4 if quantised else half) / GIB,
        embeddings=shape.embedding_weights * half / GIB,
        lora=lora * learnt / GIB,
        optimizer=lora * moments / GIB,
        activations=activations / GIB,
        logits=logits / GIB,
        context=_CONTEXT_GIB[recipe.backend],
    )


def _unsloth_activation_bytes(shape: ModelShape, half: int, checkpointing: bool) -> float:
    """Bytes a token. Unsloth moves the layers' inputs to the host, keeps one there, and recomputes one layer."""
    one_layer = half * (4 * shape.intermediate + 13 * shape.hidden)
    return half * shape.hidden + one_layer if checkpointing else shape.layers * one_layer


def _peak_bytes(recipe: Recipe, shape: ModelShape, tokens: int, length: int) -> tuple[float, float]:
    """(activations, logits) in bytes at the moment that takes more: the loss, or the deepest layer's backward pass."""
    training = recipe.training
    half = 4 if recipe.base.dtype == "float32" else 2
    layer = tokens * _layer_bytes(recipe, shape, half, length)
    kept = shape.layers * (tokens * half * shape.hidden if training.gradient_checkpointing else layer)
    mask = tokens * length  # a byte each: who sees whom, as batches with padding have it
    ends = tokens * shape.hidden * 10  # the last norm in float32, and what goes into the head
    loss = shape.vocabulary * (
        _CHUNK_BYTES * min(tokens, _CHUNK_TOKENS) if training.chunked_loss else _WHOLE_BYTES * tokens
    )
    # Backward through the MLP: gradients of its product and of one branch, of the hidden state, and one map's weights.
    backward: float = tokens * half * (2 * shape.intermediate + shape.hidden) + half * shape.hidden * shape.intermediate
    if training.gradient_checkpointing:
        backward += layer
    activations = kept + mask
    return (activations + ends, loss) if ends + loss >= backward else (activations + backward, 0.0)


def _layer_bytes(recipe: Recipe, shape: ModelShape, half: int, length: int) -> float:
    """What one layer keeps for its backward pass, bytes a token.

    Norms keep their input in float32; LoRA keeps the input of each adapted map, once where maps share it; attention
    its queries, keys, values and result, keys and values repeated for every head unless all share one; the MLP both
    branches and the activated one. The mask is made a bias of the attention anew in each layer.
    """
    adapted = set(recipe.lora.targets)
    wide, narrow = shape.linears["q_proj"][1], shape.linears["k_proj"][1]
    repeated = narrow if shape.kv_heads == 1 else wide
    values = (
        shape.norms * shape.hidden * 4 / half
        + shape.hidden * bool(adapted & {"q_proj", "k_proj", "v_proj"})
        + shape.hidden * bool(adapted & {"gate_proj", "up_proj"})
        + shape.intermediate * (4 if "down_proj" in adapted else 3)
        + 2 * wide
        + 2 * repeated
        + (wide + narrow) * 4 / half * shape.head_norms
        + length
    )
    return half * values


def largest_batch(recipe: Recipe, shape: ModelShape, card_gib: float) -> int:
    """Rows of `max_length` tokens that fit in `card_gib` at once; 0 where not even one does."""
    fits = 0
    while fits < 64 and estimate_vram(recipe, shape, batch_size=fits + 1).total <= card_gib:
        fits += 1
    return fits


def largest_length(recipe: Recipe, shape: ModelShape, card_gib: float) -> int:
    """Tokens of a row, in steps of 64, that fit in `card_gib` at the recipe's batch size; 0 where none do."""
    room = card_gib - estimate_vram(recipe, shape, length=1).total
    a_token = estimate_vram(recipe, shape, length=4097).total - estimate_vram(recipe, shape, length=4096).total
    length = min(math.floor(room / a_token) + 1, shape.context) // 64 * 64
    while length > 0 and estimate_vram(recipe, shape, length=length).total > card_gib:
        length -= 64  # under a chunk the loss grows faster than beyond it
    return max(length, 0)


def cures(recipe: Recipe, shape: ModelShape, card_gib: float) -> list[str]:
    """What makes the recipe fit `card_gib`, the least loss first; empty where it fits."""
    if estimate_vram(recipe, shape).total <= card_gib:
        return []
    found = []
    training = recipe.training
    effective = training.batch_size * training.accumulation
    if batch := largest_batch(recipe, shape, card_gib):
        found.append(f"training.batch_size: {batch} with accumulation: {math.ceil(effective / batch)}")
    chunked = _with(recipe, chunked_loss=True)
    if not training.chunked_loss and estimate_vram(chunked, shape).total <= card_gib:
        found.append("training.chunked_loss: true")
    if length := largest_length(recipe, shape, card_gib):
        found.append(f"training.max_length: {length}")
    if (
        recipe.backend == "trl"
        and estimate_vram(recipe.model_copy(update={"backend": "unsloth"}), shape).total <= card_gib
    ):
        found.append("backend: unsloth")
    if recipe.quantisation.scheme == "none":
        found.append("quantisation.scheme: nf4")
    return found or ["a smaller base model, or a card with more memory"]


def _with(recipe: Recipe, **training: Any) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=training)})
