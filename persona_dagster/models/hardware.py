"""What this process may train on, asked of NVML: importing torch for it would cost seconds in every process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from persona_dagster.config.loading import ConfigError
from persona_dagster.config.recipes import Recipe, ResolvedEvaluation, ResolvedRecipe, load_recipe
from persona_dagster.settings import Hardware, Settings

GIB = 2**30
VISIBLE = "CUDA_VISIBLE_DEVICES"

# A card of "12 GB" reports a little less than it is sold as; from the first overlay that fits it, the largest.
_OVERLAYS: tuple[tuple[float, Hardware], ...] = (
    (70.0, "gpu_80gb"),
    (22.0, "gpu_24gb"),
    (14.5, "gpu_16gb"),
    (11.0, "gpu_12gb"),
    (7.5, "gpu_8gb"),
)
_BFLOAT16_SINCE = (8, 0)  # Ampere. A T4 (7.5) and a V100 (7.0) emulate bfloat16, slower than float32


@dataclass(frozen=True, slots=True)
class Card:
    """One NVIDIA card, memory in GiB. `index` is NVML's; CUDA numbers only what is visible."""

    index: int
    name: str
    total_gib: float
    free_gib: float
    uuid: str = ""
    capability: tuple[int, int] = _BFLOAT16_SINCE


def cards(environment: Mapping[str, str] | None = None) -> list[Card]:
    """The NVIDIA cards that CUDA_VISIBLE_DEVICES leaves this process, in its order; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        here = [_card(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()
    return visible(here, (os.environ if environment is None else environment).get(VISIBLE))


def visible(here: Sequence[Card], chosen: str | None) -> list[Card]:
    """Of the cards `here` those that CUDA shows for a CUDA_VISIBLE_DEVICES of `chosen`: numbers or (starts of) UUIDs.

    As CUDA reads it, the first entry that names no card ends the list.
    """
    if chosen is None:
        return list(here)
    found: list[Card] = []
    for word in filter(None, (part.strip() for part in chosen.split(","))):
        named = [card for card in here if word == str(card.index) or card.uuid.startswith(word)]
        if not named or named[0] in found:
            break
        found.append(named[0])
    return found


def _card(nvml: Any, index: int) -> Card:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(
        index=index,
        name=nvml.nvmlDeviceGetName(handle),
        total_gib=memory.total / GIB,
        free_gib=memory.free / GIB,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        capability=tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)),
    )


def find_hardware() -> Hardware:
    """The overlay of recipes that the largest visible card can carry; `cpu` where none can."""
    return overlay_of(max((card.total_gib for card in cards()), default=0.0))


def overlay_of(total_gib: float) -> Hardware:
    """The overlay of a card of this size."""
    return next((overlay for least, overlay in _OVERLAYS if total_gib >= least), "cpu")


def precision(asked: str, card: Card | None) -> str:
    """The dtype a card computes in where a recipe asks for `asked`: float16 for bfloat16 before Ampere."""
    lacks = card is not None and card.capability < _BFLOAT16_SINCE
    return "float16" if asked == "bfloat16" and lacks else asked


def rank_device() -> int:
    """The CUDA ordinal of this process: torchrun's LOCAL_RANK, 0 for a process by itself."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def hardware_of(settings: Settings) -> Hardware:
    """The hardware that recipes are resolved for: PERSONA_HARDWARE in every profile. Where it is not set, what is found
    here in live and own, and `cpu` for the sample, which needs no more.

    Raises:
        ConfigError: it is not set, and trainings run on other machines, whose cards nobody here can see.
    """
    if settings.hardware is None and settings.profile in ("live", "own"):
        if settings.engine != "local":
            raise ConfigError(
                f"PERSONA_ENGINE={settings.engine} trains on other machines than this one: say which cards they have, "
                f"PERSONA_HARDWARE={'|'.join(get_args(Hardware))}"
            )
        return find_hardware()
    return settings.hardware or "cpu"


def resolved_recipe(name: str, settings: Settings) -> Recipe:
    """The recipe as it was resolved, whatever machine asks; as it would be here where it never was.

    Raises `ConfigError`: the file is bad and was never good, or there is none."""
    stored = ResolvedRecipe.stored(settings.resolved_dir / name)
    recipe = stored.recipe if stored else recipe_here(name, settings)
    judged = ResolvedEvaluation.stored(settings.resolved_dir / name)
    return recipe.model_copy(update={"evaluation": judged.evaluation}) if judged else recipe


def recipe_here(name: str, settings: Settings) -> Recipe:
    """The recipe's file as it stands, with the overlays of this profile and of this machine's hardware laid on it."""
    return load_recipe(name, settings.config_dir, settings.profile, hardware_of(settings), settings.accepted_dir)
