"""From raw events and steps to the numbers of a point. Pure: the same events give the same numbers."""

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
from moe_cap.metrics.latency import (
    RequestTiming,
    Slo,
    Window,
    confidence_interval_95,
    goodput_requests_per_s,
    measurement_window,
    summary,
    throughput,
)
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.metrics.utilisation import timed_seconds, utilisation
from moe_cap.precision import StoragePlan
from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.routing import RoutingSource, Step, StepKind

Values = dict[str, Quantity]


@dataclass(frozen=True, slots=True)
class Repeat:
    """One timed repetition of a level: requests as the client saw them, steps as the engine ran them."""

    timings: tuple[RequestTiming, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """What turns steps into bytes, FLOPs and shares of a peak.

    Attributes:
        parallel: how the engine spread the model; what it keeps on several devices is read on each of them.
        no_offload_reason: why the bytes that a step brings in from outside the devices' memory are unknown.
    """

    architecture: Architecture
    storage: StoragePlan
    peaks: Peaks
    num_devices: int
    routing_source: RoutingSource | None
    parallel: Parallelism = SINGLE_DEVICE
    no_offload_reason: str = "the engine does not tell whether weights are offloaded"


def measured_quantities(
    repeats: Sequence[Repeat], concurrency: int | None, account: Account, slo: Slo | None = None
) -> Values:
    """Every latency, rate and utilisation of a level, with the interval over its repeats.

    Latencies are taken over the requests of all repeats that were sent in the windows, utilisations are ratios of sums
    over the steps of all repeats, rates are means over the repeats, whose windows lie apart.
    """
    pooled = Repeat(
        tuple(timing for repeat in repeats for timing in repeat.timings),
        tuple(step for repeat in repeats for step in repeat.steps),
    )
    single = [_of_repeat(repeat, concurrency, account, slo) for repeat in repeats]
    rates = {name: _mean([values[name] for values in single]) for name in _rates(repeats[0], concurrency, slo)}
    sent = [timing for repeat in repeats for timing in sent_in_window(repeat.timings, concurrency)]
    together = {
        **latencies(sent, len(pooled.timings)),
        **rates,
        **of_steps(pooled.steps, account),
        **_run(pooled, account),
    }
    return {
        name: _with_interval(quantity, [values.get(name) for values in single]) for name, quantity in together.items()
    }


def _of_repeat(repeat: Repeat, concurrency: int | None, account: Account, slo: Slo | None) -> Values:
    sent = sent_in_window(repeat.timings, concurrency)
    rates = _rates(repeat, concurrency, slo)
    return {**latencies(sent, len(repeat.timings)), **rates, **of_steps(repeat.steps, account)}


def _mean(quantities: Sequence[Quantity]) -> Quantity:
    known = [quantity.value for quantity in quantities if quantity.value is not None]
    return quantities[0].model_copy(update={"value": fmean(known)}) if known else quantities[0]


def _with_interval(quantity: Quantity, repeats: Sequence[Quantity | None]) -> Quantity:
    values = [repeat.value for repeat in repeats if repeat is not None and repeat.value is not None]
    interval = confidence_interval_95(values) if len(values) == len(repeats) else None
    return quantity if interval is None else quantity.model_copy(update={"interval_95": interval.half_width})


def known(name: str, value: float, *, source: str = "measured", note: str | None = None) -> Quantity:
    """A number under its name's unit."""
    return Quantity.model_validate({"value": value, "unit": QUANTITIES[name].unit, "source": source, "note": note})


def unknown(name: str, reason: str, *, source: str = "measured") -> Quantity:
    """No number, and why."""
    return Quantity.model_validate({"value": None, "unit": QUANTITIES[name].unit, "source": source, "reason": reason})


def sent_in_window(timings: Sequence[RequestTiming], concurrency: int | None) -> list[RequestTiming]:
    """The requests that were sent in the steady window, its last one included; all where there is none.

    Those that were sent while the load was still rising are left out. Those that ended after the window stay: leaving
    out whatever took long would flatter every percentile. The batches of a lock step start in the window, all of them.
    """
    window = measurement_window(timings, concurrency)
    return [timing for timing in timings if window.start_s <= timing.sent_s <= window.end_s]


def latencies(timings: Sequence[RequestTiming], out_of: int) -> Values:
    """Percentiles, mean and spread of every latency over the requests that completed.

    Args:
        timings: of the requests that were sent in the window.
        out_of: how many were sent in all.
    """
    done = [timing for timing in timings if timing.error is None]
    observed: dict[str, list[float | None]] = {
        "ttft_s": [timing.ttft_s for timing in done],
        "tpot_s": [timing.tpot_s for timing in done],
        "itl_s": [gap for timing in done for gap in timing.itl_s],
        "e2e_s": [timing.e2e_s for timing in done],
        "schedule_lag_s": [timing.schedule_lag_s for timing in timings],
    }
    quantities: Values = {}
    which = "all" if len(timings) == out_of else f"{len(timings)} of {out_of}"
    note = f"over {which} requests, sent in the measured window; {len(done)} completed"
    for key, values in observed.items():
        found = summary(values)
        for statistic in ("mean", "std", "p50", "p90", "p95", "p99"):
            name = f"{key}_{statistic}"
            value = getattr(found, statistic) if found else None
            quantities[name] = (
                known(name, value, note=note) if value is not None else unknown(name, _why_no(key, found is None))
            )
    return quantities


def _why_no(key: str, none_at_all: bool) -> str:
    if key == "schedule_lag_s":
        return "a closed loop has no schedule to lag behind"
    return "no request completed with enough tokens" if none_at_all else "a single value has no spread"


def _rates(repeat: Repeat, concurrency: int | None, slo: Slo | None) -> Values:
    window = measurement_window(repeat.timings, concurrency)
    rate = throughput(repeat.timings, window)
    note = f"{window.kind.value} window of {window.length_s:.3g} s"
    return {
        "output_tokens_per_s": known("output_tokens_per_s", rate.output_tokens_per_s, note=note),
        "total_tokens_per_s": known("total_tokens_per_s", rate.total_tokens_per_s, note=note),
        "requests_per_s": known("requests_per_s", rate.requests_per_s, note=note),
        "goodput_requests_per_s": _goodput(repeat, window, slo),
        **{
            f"{kind.value}_tokens_per_s": _step_rate(f"{kind.value}_tokens_per_s", _of_kind(repeat.steps, kind))
            for kind in (StepKind.PREFILL, StepKind.DECODE)
        },
    }


def _goodput(repeat: Repeat, window: Window, slo: Slo | None) -> Quantity:
    name = "goodput_requests_per_s"
    if slo is None:
        return unknown(name, "the submission sets no service level objectives")
    return known(name, goodput_requests_per_s(repeat.timings, slo, window), note=str(slo))


def _step_rate(name: str, steps: Sequence[Step]) -> Quantity:
    if not steps:
        return unknown(name, "the engine does not tell its steps, or ran none of this kind")
    return known(name, sum(step.num_tokens for step in steps) / timed_seconds(steps), source="derived")


def _run(pooled: Repeat, account: Account) -> Values:
    failed = sum(timing.error is not None for timing in pooled.timings)
    mixed = len(_of_kind(pooled.steps, StepKind.MIXED))
    return {
        "failed_requests": known("failed_requests", failed),
        "mixed_steps": known("mixed_steps", mixed),
        "offload_bytes_per_step": unknown("offload_bytes_per_step", account.no_offload_reason),
    }


def _of_kind(steps: Iterable[Step], kind: StepKind) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.kind is kind)


def of_steps(steps: Sequence[Step], account: Account) -> Values:
    """Utilisations, activated experts and work of both phases."""
    quantities: Values = {}
    for kind in (StepKind.PREFILL, StepKind.DECODE):
        phase = _of_kind(steps, kind)
        quantities |= _utilisations(kind.value, phase, account)
        name = f"{kind.value}_activated_experts"
        quantities[name] = _activated(name, phase, account)
    decode = _of_kind(steps, StepKind.DECODE)
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
        return unknown(name, "the engine does not tell its steps, or ran none of this kind", source=source)
    if peak is None:
        return unknown(name, f"no peak is known for {account.peaks.compute_dtype} on this device", source=source)
    share = utilisation(amount, timed_seconds(steps), peak, account.num_devices, name=name)
    routing = " under uniform routing" if source == "estimated" else ""
    per_second = "GB/s" if "mbu" in name else "GFLOP/s"
    note = f"of {peak / 1e9:.4g} {per_second} a device, the {which}{routing}"
    return known(name, share.value, source=source, note=note)


def _activated(name: str, steps: Sequence[Step], account: Account) -> Quantity:
    if not account.architecture.moe_blocks:
        return unknown(name, "a dense model has no routed experts")
    if not steps:
        return unknown(name, "the engine does not tell its steps, or ran none of this kind")
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
            quantities[name] = unknown(name, "the engine does not tell its steps, or ran no decode step")
    return quantities


def broken_rules(quantities: Mapping[str, Quantity]) -> tuple[str, ...]:
    """Validity rules that a level breaks. Only the vanilla forms may exceed 1: that is what sparsity does to them."""
    return tuple(
        f"{name} is {quantity.value:.3g}, above 1: a peak, a time or the count is wrong"
        for name, quantity in quantities.items()
        if ("_s_mbu" in name or "_s_mfu" in name) and quantity.value is not None and quantity.value > 1
    )
