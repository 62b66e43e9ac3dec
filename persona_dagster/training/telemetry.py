"""What the machine does while it trains: memory, power and temperature by NVML, resident memory without a card."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import psutil

from persona_dagster.models.hardware import GIB


class Gauges:
    """Reads the cards that this training is on; energy is power integrated over the readings."""

    def __init__(self, indices: Sequence[int]) -> None:
        """`indices`: the NVML indices of the cards, none on a CPU."""
        self.indices = list(indices)
        self.peak_gib = 0.0  # used memory of the fullest card, or this process's resident memory
        self.energy_wh = 0.0
        self._nvml: Any = None
        self._read_at = time.monotonic()

    def __enter__(self) -> Gauges:
        if self.indices:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def read(self) -> dict[str, float]:
        """vram_gib of the fullest card, power_w of all, temperature_c of the hottest; rss_gib where there is none."""
        now = time.monotonic()
        passed, self._read_at = now - self._read_at, now
        if self._nvml is None:
            rss = psutil.Process().memory_info().rss / GIB
            self.peak_gib = max(self.peak_gib, rss)
            return {"rss_gib": round(rss, 3)}
        nvml = self._nvml
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in self.indices]
        used = max(nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles) / GIB
        power = sum(nvml.nvmlDeviceGetPowerUsage(handle) for handle in handles) / 1000
        celsius = max(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU) for handle in handles)
        self.peak_gib = max(self.peak_gib, used)
        self.energy_wh += power * passed / 3600
        return {"vram_gib": round(used, 3), "power_w": round(power, 1), "temperature_c": float(celsius)}
