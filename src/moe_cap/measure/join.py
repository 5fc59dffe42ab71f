"""From raw steps and routing rows to steps with distinct experts: the join key is (request, position)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moe_cap.architecture import Architecture
from moe_cap.errors import InvalidRunError, TraceError
from moe_cap.measure.engines.base import Completion, EngineStep, Member, RoutingRows
from moe_cap.routing import Step, activated_experts, check_routing

Members = tuple[Member, ...]


def join_steps(steps: Sequence[EngineStep], rows: Mapping[str, RoutingRows] | None) -> tuple[Step, ...]:
    """Steps as the accounting takes them.

    Args:
        steps: of the timed pass.
        rows: of the routing pass, by request; None where no routing is known.

    Raises:
        InvalidRunError: a step computed a token that the routing pass has no row for.
    """
    known: dict[Members, tuple[float, ...]] = {}
    return tuple(_join(step, rows, known) for step in steps)


def _join(step: EngineStep, rows: Mapping[str, RoutingRows] | None, known: dict[Members, tuple[float, ...]]) -> Step:
    activated = None
    if rows is not None:
        if step.members not in known:
            known[step.members] = tuple(map(float, activated_experts(_ids_of(step.members, rows))))
        activated = known[step.members]
    return Step(
        kind=step.kind,
        new_tokens=tuple(member.num_tokens for member in step.members),
        context_tokens=tuple(member.first_position + member.num_tokens for member in step.members),
        activated_experts=activated,
        logit_rows=step.logit_rows,
        step_s=step.step_s,
    )


def _ids_of(members: Members, rows: Mapping[str, RoutingRows]) -> NDArray[np.int16]:
    """Ids of all tokens of a step, [tokens, layers, top_k]."""
    parts = []
    for member in members:
        end = member.first_position + member.num_tokens
        trace = rows.get(member.request_id)
        if trace is None or len(trace.experts) < end:
            have = 0 if trace is None else len(trace.experts)
            raise InvalidRunError(
                f"request {member.request_id} computed position {end - 1}, its routing ends at {have}"
            )
        parts.append(trace.experts[member.first_position : end])
    return np.concatenate(parts)


def check_rows(rows: Sequence[RoutingRows], arch: Architecture) -> None:
    """Every invariant of docs/metrics.md, "Routing", on a whole trace.

    Raises:
        InvalidRunError: one is broken, so nothing of this run is published.
    """
    for trace in rows:
        try:
            check_routing(
                trace.experts, num_experts=arch.num_experts, top_k=arch.top_k, num_layers=len(arch.moe_layers)
            )
        except TraceError as error:
            raise InvalidRunError(f"the routing of request {trace.request_id} is broken: {error}") from error


def agreement(rows: Sequence[RoutingRows], completions: Mapping[str, Completion]) -> float:
    """Share of output tokens that the routing pass too would have produced at the same place, 0..1."""
    pairs = [
        (said, forced)
        for trace in rows
        for said, forced in zip(trace.predicted, completions[trace.request_id].tokens, strict=True)
    ]
    return sum(said == forced for said, forced in pairs) / len(pairs)
