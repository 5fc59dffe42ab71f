"""What the forward passes of a level say: bytes, FLOPs, shares of a peak, activated experts. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from moe_cap.architecture import Architecture
from moe_cap.measure.machine import Peaks
from moe_cap.metrics.bytes_and_flops import (
    step_bytes,
    step_bytes_all_experts,
    step_bytes_paper,
    step_flops,
    step_flops_all_experts,
    step_flops_paper,
)
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.metrics.utilisation import timed_seconds, utilisation
from moe_cap.precision import StoragePlan
from moe_cap.quantity import Quantity, known, unknown
from moe_cap.routing import RoutingSource, Step, StepKind

Values = dict[str, Quantity]
NO_STEPS = "the engine does not tell its steps, or ran none of this kind"


@dataclass(frozen=True, slots=True)
class Account:
    """What turns steps into bytes, FLOPs and shares of a peak.

    Attributes:
        parallel: how the engine spread the model; what it keeps on several devices is read on each of them.
        no_offload_reason: why the bytes that a step brings in from outside the devices' memory are unknown.
        no_steps_reason: why steps are not known, or why there are none of a kind.
    """

    architecture: Architecture
    storage: StoragePlan
    peaks: Peaks
    num_devices: int
    routing_source: RoutingSource | None
    parallel: Parallelism = SINGLE_DEVICE
    no_offload_reason: str = "the engine does not tell whether weights are offloaded"
    no_steps_reason: str = NO_STEPS


def of_kind(steps: Iterable[Step], kind: StepKind) -> tuple[Step, ...]:
    """The steps of one kind."""
    return tuple(step for step in steps if step.kind is kind)


def of_steps(steps: Sequence[Step], account: Account) -> Values:
    """Utilisations, activated experts and work of both phases."""
    quantities: Values = {}
    for kind in (StepKind.PREFILL, StepKind.DECODE):
        phase = of_kind(steps, kind)
        quantities |= _utilisations(kind.value, phase, account)
        name = f"{kind.value}_activated_experts"
        quantities[name] = _activated(name, phase, account)
    decode = of_kind(steps, StepKind.DECODE)
    quantities["decode_activated_share"] = _activated_share(decode, account)
    return quantities | _work(decode, account)


def _counts(account: Account) -> Mapping[str, Callable[[Step], float]]:
    arch, storage, parallel = account.architecture, account.storage, account.parallel
    return {
        "s_mbu": lambda step: step_bytes(arch, step, storage, parallel).total_read,
        "s_mbu_paper": lambda step: step_bytes_paper(arch, step, storage),
        "mbu": lambda step: step_bytes_all_experts(arch, step, storage, parallel).total_read,
        "s_mfu": lambda step: step_flops(arch, step).total,
        "s_mfu_paper": lambda step: step_flops_paper(arch, step),
        "mfu": lambda step: step_flops_all_experts(arch, step).total,
    }


def _utilisations(phase: str, steps: Sequence[Step], account: Account) -> Values:
    peaks = account.peaks
    source = "estimated" if account.routing_source is RoutingSource.UNIFORM else "derived"
    quantities: Values = {}
    for kind, count in _counts(account).items():
        bandwidth = "mbu" in kind
        datasheet = peaks.datasheet_bytes_per_s if bandwidth else peaks.datasheet_flops_per_s
        measured = peaks.measured_bytes_per_s if bandwidth else peaks.measured_flops_per_s
        amount = sum(map(count, steps))
        of_datasheet = "datasheet peak" if datasheet else "measured peak: this device has no datasheet in the catalogue"
        for name, peak, which in (
            (f"{phase}_{kind}", datasheet or measured, of_datasheet),
            (f"{phase}_{kind}_of_measured_peak", measured, "measured peak"),
        ):
            quantities[name] = _share(name, amount, steps, peak, which, account, source)
    return quantities


def _share(
    name: str, amount: float, steps: Sequence[Step], peak: float | None, which: str, account: Account, source: str
) -> Quantity:
    if not steps:
        return unknown(name, account.no_steps_reason, source=source)
    if peak is None:
        why = f": {account.peaks.unmeasured_reason}" if account.peaks.unmeasured_reason else ""
        return unknown(name, f"no peak is known for {account.peaks.compute_dtype} on this device{why}", source=source)
    share = utilisation(amount, timed_seconds(steps), peak, account.num_devices, name=name)
    routing = " under uniform routing" if source == "estimated" else ""
    per_second = "GB/s" if "mbu" in name else "GFLOP/s"
    note = f"of {peak / 1e9:.4g} {per_second} a device, the {which}{routing}"
    return known(name, share.value, source=source, note=note)


def _activated(name: str, steps: Sequence[Step], account: Account) -> Quantity:
    if not account.architecture.moe_blocks:
        return unknown(name, "a dense model has no routed experts")
    if not steps:
        return unknown(name, account.no_steps_reason)
    values = [fmean(step.routing_for(account.architecture)) for step in steps]
    return known(
        name, fmean(values), source="estimated" if account.routing_source is RoutingSource.UNIFORM else "measured"
    )


def _activated_share(steps: Sequence[Step], account: Account) -> Quantity:
    experts = _activated("decode_activated_experts", steps, account)
    if experts.value is None:
        return unknown("decode_activated_share", str(experts.reason))
    total = fmean(block.num_experts for block in account.architecture.moe_blocks)
    return known("decode_activated_share", experts.value / total, source=experts.source)


def _work(decode: Sequence[Step], account: Account) -> Values:
    """Mean bytes and FLOPs of a decode step."""
    counts = _counts(account)
    quantities: Values = {}
    for name, kind in (("decode_bytes_per_step", "s_mbu"), ("decode_flops_per_step", "s_mfu")):
        if decode:
            quantities[name] = known(name, fmean(map(counts[kind], decode)), source="derived")
        else:
            quantities[name] = unknown(name, account.no_steps_reason)
    return quantities


def step_rate(kind: StepKind, steps: Sequence[Step], reason: str) -> Quantity:
    """Tokens per second of the steps of one kind; `reason` is why there may be none."""
    name, steps = f"{kind.value}_tokens_per_s", of_kind(steps, kind)
    if not steps:
        return unknown(name, reason)
    return known(name, sum(step.num_tokens for step in steps) / timed_seconds(steps), source="derived")
