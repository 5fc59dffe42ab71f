"""What an engine did in one forward pass, and which experts its tokens were sent to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from moe_cap.architecture.model import Architecture
from moe_cap.errors import InvalidInputError, TraceError

Ids = NDArray[np.integer]


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
        activated_experts: distinct routed experts per MoE layer, in layer order; float because expectations are too.
            None when no routing is known for the pass.
        logit_rows: rows of logits that the pass makes.
        step_s: wall time of the pass in seconds, None for a pass that is only predicted.
        source_tokens: length of the source that each sequence of an encoder-decoder model is decoded from; empty for
            all other models, and for a pass of the encoder itself, whose new tokens are the source.
    """

    kind: StepKind
    new_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    activated_experts: tuple[float, ...] | None
    logit_rows: int
    step_s: float | None = None
    source_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.new_tokens) != len(self.context_tokens):
            raise TraceError(
                f"{len(self.new_tokens)} sequences compute tokens, {len(self.context_tokens)} have a context"
            )
        for new, context in zip(self.new_tokens, self.context_tokens, strict=True):
            if not 0 <= new <= context:
                raise TraceError(
                    f"a sequence computes {new} tokens that attend to {context}: expected 0 <= new <= context"
                )
        if self.logit_rows < 0:
            raise TraceError(f"logit_rows is {self.logit_rows}: expected 0 or more")
        if self.step_s is not None and not self.step_s > 0:
            raise TraceError(f"step_s is {self.step_s}: expected more than 0 seconds, or None for a predicted pass")
        if min(self.source_tokens, default=1) < 1:
            raise TraceError(f"source_tokens are {self.source_tokens}: expected 1 or more for each sequence")

    @property
    def num_tokens(self) -> int:
        """Tokens that the pass computes."""
        return sum(self.new_tokens)

    def routing_for(self, arch: Architecture) -> tuple[float, ...]:
        """Distinct experts per MoE layer, checked against the model.

        Raises:
            TraceError: unknown routing, not one row per MoE layer, or more experts than there are.
        """
        blocks = arch.moe_blocks
        if self.activated_experts is None:
            if not blocks:
                return ()
            raise TraceError("the step's routing is unknown: record it, or take an expectation (with_uniform_routing)")
        if len(self.activated_experts) != len(blocks):
            rows, layers = len(self.activated_experts), len(blocks)
            raise TraceError(
                f"the step has {rows} rows of routing, the model {layers} MoE layers (dense ones have none)"
            )
        for row, (count, moe) in enumerate(zip(self.activated_experts, blocks, strict=True)):
            if not 0 <= count <= moe.num_experts:
                raise TraceError(f"MoE layer {row} used {count} distinct experts of {moe.num_experts}")
        return self.activated_experts

    def sources_for(self, arch: Architecture) -> tuple[int, ...]:
        """Length of every sequence's source, 0 each for a model without an encoder.

        Raises:
            TraceError: a source without an encoder, or not one for each sequence of a model that has one.
        """
        if arch.encoder is None:
            if self.source_tokens:
                raise TraceError(f"the step has source_tokens, but {arch.model_type} has no encoder to read a source")
            return (0,) * len(self.new_tokens)
        if len(self.source_tokens) != len(self.new_tokens):
            given, needed = len(self.source_tokens), len(self.new_tokens)
            raise TraceError(
                f"{arch.model_type} decodes from a source: the step needs source_tokens for {needed} sequences, it has"
                f" {given} (--source on the command line)"
            )
        return self.source_tokens


def decode_step(
    context_tokens: Sequence[int],
    activated_experts: Sequence[float] | None = None,
    step_s: float | None = None,
    *,
    source_tokens: Sequence[int] = (),
) -> Step:
    """A plain decode step: one new token and one row of logits for each sequence."""
    contexts = tuple(context_tokens)
    experts = None if activated_experts is None else tuple(activated_experts)
    return Step(StepKind.DECODE, (1,) * len(contexts), contexts, experts, len(contexts), step_s, tuple(source_tokens))


def encoder_step(source_tokens: Sequence[int]) -> Step:
    """A pass of an encoder (`Architecture.encoder`) over whole sources: it makes no logits."""
    return replace(prefill_step(source_tokens), logit_rows=0)


def prefill_step(
    prompt_tokens: Sequence[int], activated_experts: Sequence[float] | None = None, step_s: float | None = None
) -> Step:
    """A pass over whole prompts, which makes a row of logits for the last token of each."""
    prompts = tuple(prompt_tokens)
    experts = None if activated_experts is None else tuple(activated_experts)
    return Step(StepKind.PREFILL, prompts, prompts, experts, len(prompts), step_s)


def with_all_experts(step: Step, arch: Architecture) -> Step:
    """The same pass as if every expert of every layer had been used: the vanilla count."""
    return replace(step, activated_experts=tuple(float(moe.num_experts) for moe in arch.moe_blocks))


def with_uniform_routing(step: Step, arch: Architecture) -> Step:
    """The same pass with the number of distinct experts that uniform routing is expected to use."""
    return with_skewed_routing(step, arch, 0.0)


def with_skewed_routing(step: Step, arch: Architecture, zipf_exponent: float) -> Step:
    """The same pass with the expectation under experts whose popularity falls as rank ** -zipf_exponent."""
    tokens = step.num_tokens
    counts: dict[tuple[int, int, int], float] = {}
    for moe in arch.moe_blocks:
        key = (moe.num_experts, moe.num_choices, moe.top_k)
        if key not in counts:
            drawn = skewed_activated_experts(moe.num_choices, moe.top_k, tokens, zipf_exponent)
            counts[key] = drawn * moe.num_experts / moe.num_choices
    rows = tuple(counts[moe.num_experts, moe.num_choices, moe.top_k] for moe in arch.moe_blocks)
    return replace(step, activated_experts=rows)


def uniform_activated_experts(num_experts: int, top_k: int, tokens: int) -> float:
    """Expected distinct experts when every token draws `top_k` of them with equal chance: E * (1 - (1 - k/E) ** T)."""
    if not 1 <= top_k <= num_experts or tokens < 0:
        raise InvalidInputError(f"no routing of {tokens} tokens to {top_k} of {num_experts} experts")
    return num_experts * (1.0 - (1.0 - top_k / num_experts) ** tokens)


def skewed_activated_experts(num_experts: int, top_k: int, tokens: int, zipf_exponent: float) -> float:
    """Expected distinct experts when popularity falls as rank ** -zipf_exponent (0: uniform).

    A token draws without replacement; the chance of expert e to be among its k is 1 - exp(-c * p_e) with c such that
    the chances sum to k (Rosén 1972, successive sampling), which is k/E exactly when all p_e are equal.
    """
    if not zipf_exponent >= 0:
        raise InvalidInputError(f"zipf_exponent is {zipf_exponent}: expected 0 (uniform) or more")
    if zipf_exponent == 0 or top_k == num_experts:
        return uniform_activated_experts(num_experts, top_k, tokens)
    if not 1 <= top_k <= num_experts or tokens < 0:
        raise InvalidInputError(f"no routing of {tokens} tokens to {top_k} of {num_experts} experts")
    popularity = np.arange(1, num_experts + 1, dtype=np.float64) ** -zipf_exponent
    low, high = 0.0, 1.0
    while np.sum(-np.expm1(-high * popularity)) < top_k:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.sum(-np.expm1(-middle * popularity)) < top_k else (low, middle)
    return float(np.sum(-np.expm1(-high * popularity * tokens)))


def activated_experts(ids: Ids) -> tuple[int, ...]:
    """Distinct experts per layer of the tokens that shared a step; `ids` is [tokens, layers, top_k]."""
    if ids.ndim != 3:
        raise TraceError(f"routed expert ids have shape {ids.shape}: expected [tokens, layers, top_k]")
    return tuple(int(np.unique(ids[:, layer]).size) for layer in range(ids.shape[1]))


def activated_experts_at_batch(ids: Ids, batch_size: int) -> tuple[float, ...]:
    """Mean distinct experts per layer if `batch_size` of the traced sequences had shared their steps.

    `ids` is [sequences, steps, layers, top_k]; sequences are taken in groups of `batch_size`, in order, and an
    incomplete last group is left out.

    Raises:
        TraceError: wrong shape, or fewer sequences than `batch_size`.
    """
    if ids.ndim != 4 or not 1 <= batch_size <= ids.shape[0] or ids.shape[1] == 0:
        raise TraceError(
            f"no batch of {batch_size} in a trace of shape {ids.shape} = [sequences, steps, layers, top_k]"
        )
    groups = [ids[first : first + batch_size] for first in range(0, ids.shape[0] - batch_size + 1, batch_size)]
    rows = [activated_experts(group[:, step]) for group in groups for step in range(ids.shape[1])]
    return tuple(float(value) for value in np.mean(np.asarray(rows, dtype=np.float64), axis=0))


def expert_histogram(ids: Ids, num_experts: int) -> NDArray[np.int64]:
    """How many tokens each expert of each layer got: [layers, num_experts] from ids [tokens, layers, top_k]."""
    check_routing(ids, num_experts=num_experts, top_k=ids.shape[-1])
    layers = ids.shape[1]
    flat = ids.transpose(1, 0, 2).reshape(layers, -1).astype(np.int64) + np.arange(layers)[:, None] * num_experts
    return np.bincount(flat.ravel(), minlength=layers * num_experts).reshape(layers, num_experts).astype(np.int64)


def check_routing(ids: Ids, *, num_experts: int, top_k: int, num_layers: int | None = None) -> None:
    """Check the ids of one step against every invariant of docs/metrics.md, "Routing".

    Args:
        ids: [tokens, MoE layers, top_k].
        num_experts: ids that the router picks from; shared experts that an engine fuses in must be dropped before.
        top_k: experts per token.
        num_layers: MoE layers of the model, None to skip that check.

    Raises:
        TraceError: an invariant is broken; the run it belongs to must not be published.
    """
    if ids.ndim != 3 or not np.issubdtype(ids.dtype, np.integer):
        raise TraceError(
            f"routed expert ids are {ids.dtype} of shape {ids.shape}: expected integers [tokens, layers, top_k]"
        )
    tokens, layers, width = ids.shape
    if width != top_k:
        raise TraceError(f"{width} experts per token in the trace, the model routes to {top_k}")
    if num_layers is not None and layers != num_layers:
        raise TraceError(
            f"{layers} layers in the trace, the model has {num_layers} MoE layers (dense ones have no row)"
        )
    if tokens == 0 or layers == 0:
        raise TraceError(f"an empty trace: {tokens} tokens, {layers} layers")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= num_experts:
        raise TraceError(f"expert ids from {low} to {high}: expected 0 <= id < {num_experts}")
    if high == 0 and num_experts > 1 and (top_k > 1 or tokens > 1):
        raise TraceError("a trace that is all zero: the router was never recorded")
    ordered = np.sort(ids, axis=-1)
    if top_k > 1 and bool(np.any(ordered[..., 1:] == ordered[..., :-1])):
        raise TraceError(
            f"a token was sent to the same expert twice: expected {top_k} distinct experts per token and layer"
        )
