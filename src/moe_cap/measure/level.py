"""One load level: warm up, time it, then learn where its tokens went."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moe_cap.architecture import Architecture
from moe_cap.measure.engines.attendance import Attendance, AttendedSession, unheard
from moe_cap.measure.engines.base import Completion, EngineRun, Request, RoutingRows, Session
from moe_cap.measure.join import agreement, check_rows, join_steps
from moe_cap.measure.lock_step import batches, check_lengths
from moe_cap.measure.power import Energy, MeteredWindow, PowerMeter
from moe_cap.routing import RoutingSource, Step, with_uniform_routing

log = logging.getLogger("moe_cap")


@dataclass(frozen=True, slots=True)
class TimedPass:
    """One repetition: what was sent, what the engine did, and the energy of exactly that window."""

    requests: tuple[Request, ...]
    run: EngineRun
    energy: Energy | None


@dataclass(frozen=True, slots=True)
class Trace:
    """Routing of one repetition.

    Attributes:
        rows: by request; empty where the engine cannot tell.
        agreement: share of tokens that both passes produced; None without rows.
    """

    rows: dict[str, RoutingRows]
    agreement: float | None


def time_level(
    session: Session,
    requests: Sequence[Request],
    concurrency: int,
    meter: PowerMeter,
    report: Callable[[float], None] = unheard,
) -> TimedPass:
    """The timed pass: nothing is attached to the engine, and only counters are read around it.

    Raises:
        InvalidRunError: an answer is shorter than was asked for.
    """
    return time_pass(session, lambda: session.run(requests, concurrency), requests, meter, report)


def time_pass(
    session: Session,
    carry: Callable[[], EngineRun],
    requests: Sequence[Request],
    meter: PowerMeter,
    report: Callable[[float], None],
) -> TimedPass:
    """The timed pass of any loop; `carry` has the session send the requests, `report` is told their share that is over.

    Raises:
        InvalidRunError: an answer is shorter than was asked for.
    """
    load = MeteredWindow(meter)
    with session.attended(Attendance(load, report)) if isinstance(session, AttendedSession) else load():
        run = carry()
    check_lengths(requests, run.completions)
    return TimedPass(tuple(requests), run, load.energy)


def trace_level(
    session: Session,
    requests: Sequence[Request],
    completions: Sequence[Completion],
    concurrency: int,
    architecture: Architecture,
    report: Callable[[float], None],
) -> Trace:
    """The routing pass over the tokens of a timed pass.

    Raises:
        InvalidRunError: what was recorded breaks an invariant.
    """
    answers = {completion.request_id: completion for completion in completions}
    rows: dict[str, RoutingRows] = {}
    groups = batches([request for request in requests if answers[request.id].error is None], concurrency)
    for done, group in enumerate(groups, start=1):
        for traced in session.route(group, [answers[request.id] for request in group]):
            rows[traced.request_id] = traced
        report(done / len(groups))
    check_rows(list(rows.values()), architecture)
    return Trace(rows, agreement(list(rows.values()), answers) if rows else None)


def trace_repeats(
    session: Session,
    passes: Sequence[TimedPass],
    concurrency: int,
    architecture: Architecture,
    report: Callable[[float], None],
) -> list[Trace]:
    """One trace per repetition; repetitions that sent and produced the same tokens share one."""
    if not architecture.moe_blocks:
        return [Trace({}, None) for _ in passes]
    traces: dict[tuple[tuple[int, ...], ...], Trace] = {}
    in_order = []
    for timed in passes:
        requests, answers = timed.requests, timed.run.completions
        tokens = (*(request.prompt for request in requests), *(answer.tokens for answer in answers))
        if tokens not in traces:
            if traces:
                log.info("a repetition had other tokens: its routing is recorded too")
            traces[tokens] = trace_level(session, requests, answers, concurrency, architecture, report)
        in_order.append(traces[tokens])
    return in_order


def steps_of(timed: TimedPass, trace: Trace, architecture: Architecture) -> tuple[Step, ...]:
    """The steps with their distinct experts: recorded, or expected under uniform routing where nothing was."""
    steps = join_steps(timed.run.steps, trace.rows or None)
    if trace.rows or not architecture.moe_blocks:
        return steps
    return tuple(with_uniform_routing(step, architecture) for step in steps)


def routing_source(trace: Trace, architecture: Architecture, how: RoutingSource | None) -> RoutingSource | None:
    """How the steps of `steps_of` came by their experts; None for a dense model.

    Args:
        trace: of the routing pass.
        architecture: of the model.
        how: the engine's own way, where there is a trace.
    """
    if not architecture.moe_blocks:
        return None
    return how if trace.rows else RoutingSource.UNIFORM
