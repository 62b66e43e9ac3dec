"""How long a training takes, and what energy: by arithmetic and a table of cards, until one was measured here.

The arithmetic is that of LoRA: the frozen base goes forward once and back once (no gradients of its own weights), once
more forward with checkpointing. What share of a card's peak is reached was read from one published pair, that of
LLaMA-Factory on an A100 (Llama-3-8B in 4 bits: 2,415 tokens/s with transformers, 3,726 with Unsloth): expect a factor
of 1.5 either way elsewhere. A training of the same recipe on the same card replaces all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from persona_dagster.artifacts import RunCard
from persona_dagster.config.recipes import Recipe
from persona_dagster.training.vram import ModelShape, lora_weights

_SHARE_OF_PEAK = {"trl": 0.36, "unsloth": 0.55}
_SHARE_OF_POWER = 0.85  # of the limit, while training
# By a part of NVML's name, the longest that fits wins: dense TFLOP/s in half precision with sums in float32, and the
# limit in W; of NVIDIA's data sheets and architecture papers.
_CARDS: dict[str, tuple[float, float]] = {
    "T4": (65, 70),
    "V100": (125, 300),
    "L4": (121, 72),
    "L40S": (362, 350),
    "A10": (125, 150),
    "A100": (312, 400),
    "A40": (150, 300),
    "H100": (989, 700),
    "H200": (989, 700),
    "RTX A5000": (111, 230),
    "RTX A6000": (155, 300),
    "RTX 3060": (25, 170),
    "RTX 3070": (41, 220),
    "RTX 3080": (60, 320),
    "RTX 3090": (71, 350),
    "RTX 4060": (30, 115),
    "RTX 4060 Ti": (44, 160),
    "RTX 4070": (58, 200),
    "RTX 4080": (97, 320),
    "RTX 4090": (165, 450),
    "RTX 5090": (209, 575),
}


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of all processes together. `watts` None: not known. `source` says what the figures stand on."""

    tokens_per_s: float
    watts: float | None
    source: str


def flops_a_token(recipe: Recipe, shape: ModelShape, length: int) -> float:
    """Floating-point operations of one token of a row of `length`, forward and backward, logits of all tokens."""
    maps, head = 2 * shape.linear_weights, 2 * shape.vocabulary * shape.hidden
    attention = 2 * shape.layers * shape.linears["q_proj"][1] * length  # scores and sums, half of them masked
    lora = 2 * lora_weights(recipe, shape)
    again = maps + attention if recipe.training.gradient_checkpointing else 0
    again += head if recipe.training.chunked_loss else 0
    return 2 * (maps + head) + 3 * attention + 3 * lora + again


def speed_of(
    recipe: Recipe, shape: ModelShape | None, length: int, card: str, measured: RunCard | None
) -> Throughput | None:
    """For rows of `length` tokens on cards named `card`; None for a card or a shape that nobody knows."""
    if measured is not None and measured.tokens_per_s and _same(recipe, card, measured):
        seconds = measured.train_seconds or measured.seconds
        watts = measured.energy_wh * 3600 / seconds if measured.energy_wh and seconds else None
        return Throughput(measured.tokens_per_s, watts, f"measured here on {measured.finished_at[:10]}")
    named = max((name for name in _CARDS if f" {name} " in f" {card.replace('-', ' ')} "), key=len, default=None)
    if named is None or shape is None:
        return None
    tera, limit = _CARDS[named]
    one = tera * 1e12 * _SHARE_OF_PEAK[recipe.backend] / flops_a_token(recipe, shape, length)
    count = recipe.training.processes
    source = f"by arithmetic for {named}, off by up to half: a short training (training.max_steps: 20) measures it"
    return Throughput(one * count, limit * _SHARE_OF_POWER * count, source)


def _same(recipe: Recipe, card: str, measured: RunCard) -> bool:
    """Whether that training says how fast this one will be: the same arithmetic, on the same cards."""
    given, then = recipe.model_dump(mode="json"), measured.recipe
    slow = ("backend", "quantisation", "lora")
    how = ("batch_size", "max_length", "padding_free", "packing", "gradient_checkpointing", "chunked_loss", "processes")
    before = then.get("training", {})
    return (
        measured.machine.get("cards", [])[:1] == ([card] if card else [])
        and then.get("base", {}).get("model") == recipe.base.model
        and all(then.get(name) == given[name] for name in slow)
        and all(before.get(name) == given["training"][name] for name in how)
    )
