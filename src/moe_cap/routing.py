"""What an engine did in one forward pass, and which experts its tokens were sent to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StepKind(StrEnum):
    """A mixed step is counted and reported, and belongs to neither the prefill nor the decode figure."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


class RoutingSource(StrEnum):
    """How the routing of a result was obtained (docs/metrics.md, Routing)."""

    ENGINE_STEP = "engine_step"
    LOCK_STEP = "lock_step"
    REPLAY = "replay"
    UNIFORM = "uniform"


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass of the engine.

    Attributes:
        kind: what the pass computed.
        new_tokens: tokens computed for each sequence in the pass (1 each in plain decode, a chunk in prefill).
        context_tokens: positions that the last new token of each sequence attends to, itself included.
        activated_experts: distinct routed experts per MoE layer, in layer order; float because an expectation is one too.
            None when no routing is known for the pass.
        logit_rows: rows of logits that the pass makes.
        step_s: wall time of the pass in seconds, None for a pass that is only predicted.
    """

    kind: StepKind
    new_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    activated_experts: tuple[float, ...] | None
    logit_rows: int
    step_s: float | None = None
