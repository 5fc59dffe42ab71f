"""Energy of exactly the timed window, by zeus: the run's GPUs, CPU packages and DRAM where they can be read.

Idle power is taken apart, before the run, with the same counters. Which GPUs a run uses is known once its engine is up:
until then all of them are read, and those of the run are counted (`PowerMeter.only`, `Energy.only`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from zeus.monitor import ZeusMonitor

IDLE_S = 3.0
"""How long idle power is watched; GPU counters are updated about ten times a second."""


class Monitor(Protocol):
    """What is used of `zeus.monitor.ZeusMonitor`."""

    gpu_indices: list[int]
    cpu_indices: list[int]

    def begin_window(self, key: str, sync_execution: bool = ...) -> None:
        """Read the counters; `sync_execution` waits for every GPU first, by a CUDA context of this process on each."""

    def end_window(self, key: str, sync_execution: bool = ...) -> Any:
        """Read them again: the difference, joules per device, and the seconds between."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of one window by where they went; None for what this machine cannot tell.

    Attributes:
        gpus_j: of each GPU, by its number as CUDA_VISIBLE_DEVICES leaves it.
    """

    seconds: float
    gpus_j: Mapping[int, float]
    cpu_j: float | None
    dram_j: float | None

    @property
    def gpu_j(self) -> float | None:
        """Of all GPUs that are counted."""
        return sum(self.gpus_j.values()) if self.gpus_j else None

    def only(self, gpus: Collection[int]) -> Energy:
        """Without the GPUs that are not listed."""
        return replace(self, gpus_j={index: joules for index, joules in self.gpus_j.items() if index in gpus})

    @property
    def watts(self) -> float | None:
        """Mean power; None when nothing could be read."""
        return None if self.total_j is None else self.total_j / self.seconds

    @property
    def total_j(self) -> float | None:
        """Everything that could be read; None when nothing could."""
        parts = [part for part in (self.gpu_j, self.cpu_j, self.dram_j) if part is not None]
        return sum(parts) if parts else None

    @property
    def covers(self) -> str:
        """Which counters the total holds, for people."""
        number = len(self.gpus_j)
        named = {f"{number} GPU{'s' * (number > 1)}": self.gpu_j, "CPU package": self.cpu_j, "DRAM": self.dram_j}
        return ", ".join(name for name, part in named.items() if part is not None)


class Window:
    """Filled when the measured block ends."""

    energy: Energy | None = None


class PowerMeter:
    """Counters of this machine; without any, every window's energy is None and `reason` says why.

    Args:
        monitor: reads them.
        reason: why there are none.
        gpus: numbers of the GPUs that count; None counts all.
    """

    def __init__(self, monitor: Monitor | None, reason: str | None, gpus: Collection[int] | None = None) -> None:
        self._monitor = monitor
        self.reason = reason
        self._gpus = gpus

    def only(self, gpus: Collection[int]) -> PowerMeter:
        """The same counters without the GPUs that are not listed."""
        if self._monitor is None or set(self._monitor.gpu_indices) & set(gpus) or self._monitor.cpu_indices:
            return PowerMeter(self._monitor, self.reason, gpus)
        counted = f"GPU {', '.join(map(str, gpus))}" if gpus else "the processor (no RAPL, or for root only)"
        return PowerMeter(None, f"the energy of {counted} cannot be read")

    @contextlib.contextmanager
    def window(self) -> Iterator[Window]:
        """Measure what happens inside.

        Nothing is synchronised: a server's work is in another process, where it would say nothing and hold hundreds of
        megabytes on every GPU; in this process warm-up and timed pass both end with their last tokens on the host.
        """
        window = Window()
        if self._monitor is None:
            yield window
            return
        self._monitor.begin_window("timed", sync_execution=False)
        try:
            yield window
        finally:
            energy = _energy(self._monitor.end_window("timed", sync_execution=False))
            window.energy = energy if self._gpus is None else energy.only(self._gpus)

    def idle(self, sleep: Callable[[float], None] = time.sleep) -> Energy | None:
        """Energy of a few seconds in which nothing runs; None without counters."""
        with self.window() as window:
            if self._monitor is not None:
                sleep(IDLE_S)
        return window.energy


class MeteredWindow:
    """A window of a meter that somebody else opens, at the first send, and closes, at the last end.

    Attributes:
        energy: of the window; None before it is over, and without counters.
    """

    def __init__(self, meter: PowerMeter) -> None:
        self._meter = meter
        self.energy: Energy | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """The window."""
        with self._meter.window() as window:
            yield
        self.energy = window.energy


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
        gpus_j=dict(measurement.gpu_energy or {}),
        cpu_j=total(measurement.cpu_energy),
        dram_j=total(measurement.dram_energy),
    )
