"""One load level as it is published: its numbers, its routing and the raw events behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_cap.architecture import Architecture
from moe_cap.expert_trace import ExpertTrace, activated_at, join_sequences, recorded_batches
from moe_cap.measure.costs import NO_TOKENS, CostInputs, cost_quantities
from moe_cap.measure.engines.base import EngineRun
from moe_cap.measure.level import TimedPass, Trace, routing_source, steps_of
from moe_cap.measure.machine import MeasuredMachine, Peaks
from moe_cap.measure.prompt_cache import cached_prompts
from moe_cap.measure.quantities import Repeat, above_one, client_quantities, measured_quantities, never_steady
from moe_cap.measure.step_quantities import NO_STEPS, Account
from moe_cap.metrics.cost import TokenRate
from moe_cap.metrics.latency import RequestTiming, Slo
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import StoragePlan, stored_bytes
from moe_cap.quantity import Quantity, known, unknown
from moe_cap.result import Load, Point, RawRequest, RawStep
from moe_cap.routing import RoutingSource, Step, StepKind, expert_histogram

J_PER_KWH = 3.6e6
BYTES_TOLERANCE = 0.01
"""How far the accounting's weights may be from the bytes that the engine holds before a point is not believed."""


@dataclass(frozen=True, slots=True)
class LevelResult:
    """Everything that one level gave.

    Attributes:
        degenerate: timed answers that are blank or one character over and over, of all repetitions.
        slo: what goodput counts; None where nobody asked for any.
        refusals: why passes were not believed and carried again.
    """

    load: Load
    passes: tuple[TimedPass, ...]
    traces: tuple[Trace, ...]
    degenerate: int
    slo: Slo | None = None
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """What was measured, on what.

    Attributes:
        routing: how the engine obtains its traces.
        parallel: how the engine spread the model over the devices.
        no_offload_reason: why the bytes that a step brings in from outside the devices' memory are unknown.
        weights_bytes: of one copy of the weights as the engine holds them; None where it cannot be told.
    """

    architecture: Architecture
    storage: StoragePlan
    machine: MeasuredMachine
    peaks: Peaks
    routing: RoutingSource | None
    idle_w: float | None
    no_power_reason: str | None
    parallel: Parallelism
    weights_bytes: float | None
    no_offload_reason: str


def build_point(level: LevelResult, system: System) -> Point:
    """The published point of a level."""
    arch = system.architecture
    source = routing_source(level.traces[0], arch, system.routing)
    account = Account(
        arch,
        system.storage,
        system.peaks,
        system.machine.num_devices,
        source,
        system.parallel,
        system.no_offload_reason,
        next((reason for timed in level.passes if (reason := timed.run.no_steps_reason)), NO_STEPS),
    )
    steps = [steps_of(timed, trace, arch) for timed, trace in zip(level.passes, level.traces, strict=True)]
    requests = raw_requests(level)
    repeats = [
        Repeat(tuple(map(_timing, (raw for raw in requests if raw.repeat == index))), repeat_steps)
        for index, repeat_steps in enumerate(steps)
    ]
    quantities = measured_quantities(repeats, level.load.concurrency, account, level.slo)
    quantities["routing_agreement"] = _agreement(level.traces)
    quantities |= client_quantities([timed.run.client for timed in level.passes])
    quantities |= _energy(level, system)
    quantities |= _costs(level, system, quantities)
    unsteady = never_steady(repeats, level.load.concurrency)
    trace = expert_trace(level, arch)
    return Point(
        load=level.load,
        quantities=quantities,
        routing_source=source,
        activated_by_layer=_by_layer(steps[0]) if trace else None,
        expert_tokens=_expert_tokens(trace) if trace else None,
        activated_by_batch_size={size: activated_at(trace, size).mean for size in recorded_batches(trace)}
        if trace
        else None,
        invalid=_invalid(quantities) + unsteady + wrong_bytes(system) + cached_prompts(requests),
        requests=requests,
        steps=tuple(_raw_step(step, index) for index, group in enumerate(steps) for step in group),
    )


def raw_requests(level: LevelResult) -> tuple[RawRequest, ...]:
    """Every request's events, seconds since the first pass of the level began."""
    origin_s = level.passes[0].run.started_s
    prompts = [{request.id: len(request.prompt) for request in timed.requests} for timed in level.passes]
    return tuple(
        RawRequest(
            sent_s=done.sent_s - origin_s,
            token_s=tuple(time_s - origin_s for time_s in done.token_s),
            ended_s=done.ended_s - origin_s,
            input_tokens=prompts[repeat][done.request_id],
            output_tokens=done.num_tokens,
            intended_s=None if done.intended_s is None else done.intended_s - origin_s,
            error=done.error,
            repeat=repeat,
            cached_tokens=done.cached_tokens,
        )
        for repeat, timed in enumerate(level.passes)
        for done in timed.run.completions
    )


def _timing(raw: RawRequest) -> RequestTiming:
    return RequestTiming(
        sent_s=raw.sent_s,
        intended_s=raw.intended_s,
        token_s=raw.token_s,
        ended_s=raw.ended_s,
        input_tokens=raw.input_tokens,
        output_tokens=raw.output_tokens,
        error=raw.error,
    )


def _raw_step(step: Step, repeat: int) -> RawStep:
    return RawStep(
        kind=step.kind,
        step_s=step.step_s,
        new_tokens=step.new_tokens,
        context_tokens=step.context_tokens,
        activated_experts=step.activated_experts,
        logit_rows=step.logit_rows,
        repeat=repeat,
    )


def _agreement(traces: Sequence[Trace]) -> Quantity:
    shares = [trace.agreement for trace in traces if trace.agreement is not None]
    if not shares:
        return unknown("routing_agreement", "there was no routing pass: the model is dense, or the engine cannot tell")
    return known("routing_agreement", min(shares))


def _output_tokens(runs: Sequence[EngineRun]) -> int:
    return sum(completion.num_tokens for run in runs for completion in run.completions)


def _energy(level: LevelResult, system: System) -> dict[str, Quantity]:
    """Energy of the timed windows of all repetitions; the idle power stands beside it and is not subtracted."""
    windows = [timed.energy for timed in level.passes if timed.energy is not None]
    joules = [window.total_j for window in windows if window.total_j is not None]
    idle = system.idle_w
    reason = system.no_power_reason or "the energy counters gave no value"
    quantities = {"idle_power_w": known("idle_power_w", idle) if idle is not None else unknown("idle_power_w", reason)}
    names = ("power_w", "energy_j", "j_per_output_token", "output_tokens_per_kwh")
    if len(joules) != len(level.passes) or not sum(joules) > 0:
        return quantities | {name: unknown(name, reason) for name in names}
    total_j, tokens = sum(joules), _output_tokens([timed.run for timed in level.passes])
    note = f"counters: {windows[0].covers}"
    quantities |= {
        "power_w": known("power_w", total_j / sum(window.seconds for window in windows), note=note),
        "energy_j": known("energy_j", total_j, note=f"{note}; {len(joules)} repetitions together"),
    }
    if not tokens:
        return quantities | {name: unknown(name, NO_TOKENS) for name in names[2:]}
    return quantities | {
        "j_per_output_token": known("j_per_output_token", total_j / tokens, source="derived", note=note),
        "output_tokens_per_kwh": known(
            "output_tokens_per_kwh", tokens / total_j * J_PER_KWH, source="derived", note=note
        ),
    }


def _costs(level: LevelResult, system: System, quantities: Mapping[str, Quantity]) -> dict[str, Quantity]:
    output, total = quantities["output_tokens_per_s"].value, quantities["total_tokens_per_s"].value
    windows = [timed.energy for timed in level.passes if timed.energy is not None]
    return cost_quantities(
        CostInputs(
            device=system.machine.device,
            num_devices=system.machine.num_devices,
            rate=TokenRate(output, total) if output else None,
            energy_j=quantities["energy_j"].value,
            seconds=sum(window.seconds for window in windows),
            counters=windows[0].covers if windows else "",
        )
    )


def _invalid(quantities: Mapping[str, Quantity]) -> tuple[str, ...]:
    failed = quantities["failed_requests"].value
    return above_one(quantities) + ((f"{failed:.0f} requests failed",) if failed else ())


def wrong_bytes(system: System) -> tuple[str, ...]:
    """Why the byte accounts cannot be believed: they rest on other weights than the engine holds.

    A checkpoint may hold multi-token-prediction layers, which no step of these loads reads.
    """
    held = system.weights_bytes
    if held is None:
        return ()
    counted = stored_bytes(system.architecture, system.storage)
    unread = system.architecture.mtp_parameters().total * system.storage.plain.bits / 8
    if counted - BYTES_TOLERANCE * held <= held <= counted + unread + BYTES_TOLERANCE * held:
        return ()
    return (
        f"the accounting counts {counted:.0f} bytes of weights, the engine holds {held:.0f}: "
        "bandwidth figures are off by as much",
    )


def _by_layer(steps: Sequence[Step]) -> tuple[float, ...] | None:
    """Mean distinct experts of each MoE layer over the decode steps; None where the engine tells no steps."""
    decode = [step.activated_experts for step in steps if step.kind is StepKind.DECODE and step.activated_experts]
    if not decode:
        return None
    return tuple(float(mean) for mean in np.mean(np.asarray(decode), axis=0))


def expert_trace(level: LevelResult, arch: Architecture) -> ExpertTrace | None:
    """The routing of the level's first repetition, in the order of its requests; None where nothing was traced."""
    rows = level.traces[0].rows
    traced = [request for request in level.passes[0].requests if request.id in rows]
    if not traced:
        return None
    return join_sequences(
        [rows[request.id].experts for request in traced], [len(request.prompt) for request in traced], arch.num_experts
    )


def _expert_tokens(trace: ExpertTrace) -> tuple[tuple[int, ...], ...]:
    """Tokens that each expert received, prompts included, [layers][experts]."""
    return tuple(tuple(map(int, layer)) for layer in expert_histogram(trace.experts, trace.num_experts))
