"""Energy of exactly the timed window, by zeus: GPU counters, CPU packages and DRAM where they can be read.

Idle power is taken apart, before the run, with the same counters.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from zeus.monitor import ZeusMonitor

IDLE_S = 3.0
"""How long idle power is watched; GPU counters are updated about ten times a second."""


class Monitor(Protocol):
    """What is used of `zeus.monitor.ZeusMonitor`."""

    gpu_indices: list[int]
    cpu_indices: list[int]

    def begin_window(self, key: str) -> None:
        """Read the counters."""

    def end_window(self, key: str) -> Any:
        """Read them again: the difference, joules per device, and the seconds between."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of one window by where they went; None for what this machine cannot tell."""

    seconds: float
    gpu_j: float | None
    cpu_j: float | None
    dram_j: float | None

    @property
    def total_j(self) -> float | None:
        """Everything that could be read; None when nothing could."""
        parts = [part for part in (self.gpu_j, self.cpu_j, self.dram_j) if part is not None]
        return sum(parts) if parts else None

    @property
    def covers(self) -> str:
        """Which counters the total holds, for people."""
        named = {"GPU": self.gpu_j, "CPU package": self.cpu_j, "DRAM": self.dram_j}
        return ", ".join(name for name, part in named.items() if part is not None)


class Window:
    """Filled when the measured block ends."""

    energy: Energy | None = None


class PowerMeter:
    """Counters of this machine; without any, every window's energy is None and `reason` says why."""

    def __init__(self, monitor: Monitor | None, reason: str | None) -> None:
        self._monitor = monitor
        self.reason = reason

    @contextlib.contextmanager
    def window(self) -> Iterator[Window]:
        """Measure what happens inside."""
        window = Window()
        if self._monitor is None:
            yield window
            return
        self._monitor.begin_window("timed")
        try:
            yield window
        finally:
            window.energy = _energy(self._monitor.end_window("timed"))

    def idle_w(self, sleep: Callable[[float], None] = time.sleep) -> float | None:
        """Mean power while nothing runs, watts."""
        with self.window() as window:
            if self._monitor is not None:
                sleep(IDLE_S)
        if window.energy is None or window.energy.total_j is None:
            return None
        return window.energy.total_j / window.energy.seconds


def open_power_meter() -> PowerMeter:
    """The counters that this machine has and that this user may read."""
    logging.getLogger("zeus").setLevel(logging.ERROR)
    monitor: Monitor = ZeusMonitor()
    if monitor.gpu_indices or monitor.cpu_indices:
        return PowerMeter(monitor, None)
    return PowerMeter(
        None,
        "no energy counter can be read: no NVIDIA or AMD GPU, and no RAPL"
        " (absent in most virtual machines, elsewhere for root only)",
    )


def _energy(measurement: Any) -> Energy:
    def total(by_device: dict[int, float] | None) -> float | None:
        return sum(by_device.values()) if by_device else None

    return Energy(
        seconds=measurement.time,
        gpu_j=total(measurement.gpu_energy),
        cpu_j=total(measurement.cpu_energy),
        dram_j=total(measurement.dram_energy),
    )
