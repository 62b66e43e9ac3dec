"""What the machine does while it trains: memory, power and temperature by NVML, resident memory without a card."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import psutil

from persona_dagster.models.hardware import GIB


class Gauges:
    """Reads the card that this process trains on; energy is power integrated over the readings."""

    def __init__(self, index: int | None) -> None:
        """`index`: the NVML index of the card, None on a CPU."""
        self.index = index
        self.peak_gib = 0.0  # the card's used memory, or this process's resident memory
        self.energy_wh = 0.0
        self._nvml: Any = None
        self._read_at = time.monotonic()

    def __enter__(self) -> Gauges:
        if self.index is not None:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def read(self) -> dict[str, float]:
        """vram_gib, power_w and temperature_c of the card; rss_gib where there is none."""
        now = time.monotonic()
        passed, self._read_at = now - self._read_at, now
        if self._nvml is None:
            rss = psutil.Process().memory_info().rss / GIB
            self.peak_gib = max(self.peak_gib, rss)
            return {"rss_gib": round(rss, 3)}
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(self.index)
        used = nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB
        power = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        self.peak_gib = max(self.peak_gib, used)
        self.energy_wh += power * passed / 3600
        celsius = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        return {"vram_gib": round(used, 3), "power_w": round(power, 1), "temperature_c": float(celsius)}
