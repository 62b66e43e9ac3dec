"""How much memory of a card a training takes, by parts, before it starts; and what to change where it cannot fit.

Derived from shapes, and calibrated on Unsloth's published table for Llama-3-8B (rank 32, nf4): 7.37 GiB and
0.217 MiB a token with unsloth, 9.70 GiB and 2.53 MiB a token with transformers + PEFT and upcast embeddings.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from persona_dagster.config.bases import Base, Folder
from persona_dagster.config.recipes import Recipe
from persona_dagster.models.hardware import GIB

ERROR = 0.10  # relative, of the total: what the estimate is held to on a real card

_NF4_BYTES = 0.5159  # a weight: 4 bits, its block's constant (64 weights), doubly quantised
_NF4_SINGLE_BYTES = 0.5625  # with float32 constants
_CHUNK_TOKENS = 256  # TRL's chunked loss
_LOGIT_BYTES = 16  # a token and vocabulary entry: half-precision logits, float32 copy, softmax and gradients
# CUDA context, dequantised weights of one layer, allocator: the rest of the published totals.
_CONTEXT_GIB = {"unsloth": 1.28, "trl": 1.65}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a Llama-like model decides its memory."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    tied: bool = False
    head_dim: int | None = None  # hidden / heads

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """From a transformers config."""
        return cls(
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


def known_shape(base: Base) -> ModelShape | None:
    """The shape of a base, from its entry or the config.json in its folder; None where only the Hub knows."""
    entry = base.entry
    if entry.shape is not None:
        return ModelShape(**entry.shape.model_dump())
    if not isinstance(entry.source, Folder) or not (entry.source.folder / "config.json").is_file():
        return None
    from transformers import AutoConfig

    return ModelShape.of(AutoConfig.from_pretrained(entry.source.folder))


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
    # SFTTrainer makes the adapter of a quantised base bfloat16; PEFT and Unsloth keep it in float32.
    lora_bytes = 2 if quantised and recipe.backend == "trl" else 4
    moments = 2 if training.optimizer == "adamw_8bit" else 8
    unsloth = recipe.backend == "unsloth"
    return Vram(
        weights=shape.linear_weights * (nf4 if quantised else half) / GIB,
        embeddings=shape.embedding_weights * half / GIB,
        lora=lora * 2 * lora_bytes / GIB,
        optimizer=lora * moments / GIB,
        activations=tokens * _activation_bytes(shape, half, training.gradient_checkpointing, offloaded=unsloth) / GIB,
        logits=_logit_bytes(shape, tokens, fused=unsloth, chunked=training.chunked_loss) / GIB,
        context=_CONTEXT_GIB[recipe.backend],
    )


def _activation_bytes(shape: ModelShape, half: int, checkpointing: bool, offloaded: bool) -> float:
    """Bytes a token. Checkpointing keeps a layer's input (Unsloth moves it to the host) and recomputes one layer."""
    one_layer = half * (4 * shape.intermediate + 13 * shape.hidden)
    if not checkpointing:
        return shape.layers * one_layer
    kept = half * shape.hidden * (1 if offloaded else shape.layers)
    return kept + one_layer


def _logit_bytes(shape: ModelShape, tokens: int, fused: bool, chunked: bool) -> float:
    if fused:
        return 0.0
    return _LOGIT_BYTES * shape.vocabulary * (min(tokens, _CHUNK_TOKENS) if chunked else tokens)


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
