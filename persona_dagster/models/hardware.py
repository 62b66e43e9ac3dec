"""What this machine can train on, asked of NVML: importing torch for it would cost seconds in every process."""

from __future__ import annotations

from dataclasses import dataclass

from persona_dagster.settings import Hardware

GIB = 2**30

# A card of "12 GB" reports a little less than it is sold as; from the first overlay that fits it, the largest.
_OVERLAYS: tuple[tuple[float, Hardware], ...] = ((22.0, "gpu_24gb"), (11.0, "gpu_12gb"), (7.5, "gpu_8gb"))


@dataclass(frozen=True, slots=True)
class Card:
    """One NVIDIA card, memory in GiB."""

    index: int
    name: str
    total_gib: float
    free_gib: float


def cards() -> list[Card]:
    """The NVIDIA cards of this machine; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_card(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _card(nvml, index: int) -> Card:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)
    return Card(index, name, memory.total / GIB, memory.free / GIB)


def find_hardware() -> Hardware:
    """The overlay of recipes that the largest card here can carry; `cpu` where none can."""
    largest = max((card.total_gib for card in cards()), default=0.0)
    return next((overlay for least, overlay in _OVERLAYS if largest >= least), "cpu")
