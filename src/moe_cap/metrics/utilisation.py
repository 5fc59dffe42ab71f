"""S-MBU, S-MFU and their vanilla forms: ratios of sums over many steps (docs/metrics.md, "Utilisations")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from moe_cap.architecture import Architecture
from moe_cap.errors import InvalidInputError, MissingPeakError
from moe_cap.metrics.bytes_and_flops import (
    step_bytes,
    step_bytes_all_experts,
    step_bytes_paper,
    step_flops,
    step_flops_all_experts,
    step_flops_paper,
)
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step


@dataclass(frozen=True, slots=True)
class Utilisation:
    """A share of a peak, 0..1 for anything physical.

    Attributes:
        value: the ratio as it came out: neither clipped nor nulled.
        invalid_reason: why it must not be trusted, None when nothing speaks against it.
    """

    value: float
    invalid_reason: str | None = None


def utilisation(amount: float, seconds: float, peak_per_s: float | None, num_devices: int, *, name: str) -> Utilisation:
    """`amount / seconds / (num_devices * peak_per_s)`.

    Args:
        amount: bytes or FLOPs summed over all steps and ranks.
        seconds: wall time summed over the same steps.
        peak_per_s: dense peak of one device for the dtype in question.
        num_devices: devices that the peak is there as many times.
        name: what is being computed, for messages ("s_mbu").

    Raises:
        MissingPeakError: no peak is known; it is never taken as 0.
        InvalidInputError: no time passed, or no device.
    """
    if peak_per_s is None:
        raise MissingPeakError(f"{name} needs the device's peak: it has none for this dtype, or nobody has measured it")
    if not peak_per_s > 0:
        raise MissingPeakError(f"{name} needs a peak above 0, got {peak_per_s!r}")
    if not seconds > 0:
        raise InvalidInputError(f"{name} needs steps that took time, got {seconds!r} s in total")
    if num_devices < 1:
        raise InvalidInputError(f"{name} needs at least one device, got {num_devices}")
    value = amount / seconds / (num_devices * peak_per_s)
    if value <= 1:
        return Utilisation(value)
    reason = f"{name} is {value:.3g}, above 1: a peak, the topology, a time or the count is wrong"
    return Utilisation(value, reason)


def timed_seconds(steps: Iterable[Step]) -> float:
    """Wall time of all steps together.

    Raises:
        InvalidInputError: a step was only predicted and has no time.
    """
    total = 0.0
    for step in steps:
        if step.step_s is None:
            raise InvalidInputError("a step without step_s cannot enter a utilisation: it was predicted, not timed")
        total += step.step_s
    return total


def _bandwidth(
    count: Callable[[Step], float], steps: Sequence[Step], peak: float | None, parallel: Parallelism, name: str
) -> Utilisation:
    return utilisation(sum(map(count, steps)), timed_seconds(steps), peak, parallel.num_devices, name=name)


def s_mbu(
    arch: Architecture, steps: Sequence[Step], storage: StoragePlan, *,
    peak_bytes_per_s: float | None, parallel: Parallelism = SINGLE_DEVICE,
) -> Utilisation:  # fmt: skip
    """Sparse memory bandwidth utilisation: what the steps had to read, over what the devices could have moved."""

    def count(step: Step) -> float:
        return step_bytes(arch, step, storage, parallel).total_read

    return _bandwidth(count, steps, peak_bytes_per_s, parallel, "s_mbu")


def s_mbu_paper(
    arch: Architecture, steps: Sequence[Step], storage: StoragePlan, *,
    peak_bytes_per_s: float | None, parallel: Parallelism = SINGLE_DEVICE,
) -> Utilisation:  # fmt: skip
    """The same with the bytes of the paper's eq. 3 only, so that rows can be compared with published ones."""

    def count(step: Step) -> float:
        return step_bytes_paper(arch, step, storage, parallel)

    return _bandwidth(count, steps, peak_bytes_per_s, parallel, "s_mbu_paper")


def mbu(
    arch: Architecture, steps: Sequence[Step], storage: StoragePlan, *,
    peak_bytes_per_s: float | None, parallel: Parallelism = SINGLE_DEVICE,
) -> Utilisation:  # fmt: skip
    """Vanilla memory bandwidth utilisation: as if every expert had been read. Above 1 is what sparsity does to it."""

    def count(step: Step) -> float:
        return step_bytes_all_experts(arch, step, storage, parallel).total_read

    return _bandwidth(count, steps, peak_bytes_per_s, parallel, "mbu")


def _flops(
    count: Callable[[Step], float], steps: Sequence[Step], peak: float | None, num_devices: int, name: str
) -> Utilisation:
    return utilisation(sum(map(count, steps)), timed_seconds(steps), peak, num_devices, name=name)


def s_mfu(
    arch: Architecture, steps: Sequence[Step], *, peak_flops_per_s: float | None, num_devices: int = 1
) -> Utilisation:
    """Sparse model FLOPS utilisation; the peak is the dense one of the compute dtype."""
    return _flops(lambda step: step_flops(arch, step).total, steps, peak_flops_per_s, num_devices, "s_mfu")


def s_mfu_paper(
    arch: Architecture, steps: Sequence[Step], *, peak_flops_per_s: float | None, num_devices: int = 1
) -> Utilisation:
    """The same with the FLOPs of the paper's eq. 4 only."""
    return _flops(lambda step: step_flops_paper(arch, step), steps, peak_flops_per_s, num_devices, "s_mfu_paper")


def mfu(
    arch: Architecture, steps: Sequence[Step], *, peak_flops_per_s: float | None, num_devices: int = 1
) -> Utilisation:
    """Vanilla model FLOPS utilisation: as if every token had gone through every expert."""
    return _flops(lambda step: step_flops_all_experts(arch, step).total, steps, peak_flops_per_s, num_devices, "mfu")
