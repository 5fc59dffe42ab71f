"""What a decode target asks of hardware, before any hardware is named."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moe_cap.architecture import Architecture, Part
from moe_cap.errors import InvalidInputError
from moe_cap.metrics.bytes_and_flops import step_bytes, step_bytes_all_experts, step_flops, step_flops_all_experts
from moe_cap.metrics.footprint import footprint
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.precision import StoragePlan, stored_bytes
from moe_cap.routing import Step, decode_step, with_skewed_routing


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that all devices of a layout hold together, copies included."""

    weights_bytes: float
    kv_bytes: float
    state_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of them."""
        return self.weights_bytes + self.kv_bytes + self.state_bytes


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one decode step per `tpot_s` needs of peak hardware; `all_experts` as if every expert were used.

    Attributes:
        tokens_per_s: `batch` tokens every `tpot_s`.
        compute_dtype: which peak the FLOP rate has to be set against.
        bytes_per_s, flops_per_s: for the experts that are expected to be activated.
        activated_experts: expected distinct experts per MoE layer, mean over layers; None for a dense model.
        memory: held by a single device, if there were one that large.
    """

    batch: int
    context_tokens: int
    tpot_s: float
    tokens_per_s: float
    compute_dtype: str
    bytes_per_s: float
    bytes_per_s_all_experts: float
    flops_per_s: float
    flops_per_s_all_experts: float
    activated_experts: float | None
    memory: Memory


def requirement(
    arch: Architecture,
    storage: StoragePlan,
    *,
    batch: int,
    context_tokens: int,
    tpot_s: float,
    zipf_exponent: float = 0.0,
    source_tokens: int | None = None,
) -> Requirement:
    """Bandwidth, FLOP rate and memory of decoding `batch` sequences with one token each every `tpot_s` seconds.

    Routing is an expectation: uniform, or skewed by `zipf_exponent` (see `routing.with_skewed_routing`). In an
    encoder-decoder model each sequence has a source of `source_tokens`; the encoder's own pass is not in the figure.

    Raises:
        InvalidInputError: an argument is not positive.
    """
    step = planned_step(
        arch, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s, zipf_exponent=zipf_exponent,
        source_tokens=source_tokens,
    )  # fmt: skip
    experts = step.activated_experts
    return Requirement(
        batch=batch,
        context_tokens=context_tokens,
        tpot_s=tpot_s,
        tokens_per_s=batch / tpot_s,
        compute_dtype=storage.compute_dtype,
        bytes_per_s=step_bytes(arch, step, storage).total_read / tpot_s,
        bytes_per_s_all_experts=step_bytes_all_experts(arch, step, storage).total_read / tpot_s,
        flops_per_s=step_flops(arch, step).total / tpot_s,
        flops_per_s_all_experts=step_flops_all_experts(arch, step).total / tpot_s,
        activated_experts=sum(experts) / len(experts) if experts else None,
        memory=memory(arch, storage, batch=batch, context_tokens=context_tokens, source_tokens=source_tokens),
    )


def tpot_for_throughput(tokens_per_s: float, batch: int) -> float:
    """The time per token at which `batch` sequences together make `tokens_per_s`."""
    if not (math.isfinite(tokens_per_s) and tokens_per_s > 0):
        raise InvalidInputError(f"tokens_per_s: expected a rate above 0, not {tokens_per_s!r}")
    return batch / tokens_per_s


def planned_step(
    arch: Architecture, *, batch: int, context_tokens: int, tpot_s: float, zipf_exponent: float,
    source_tokens: int | None = None,
) -> Step:  # fmt: skip
    """The decode step that a target repeats, with expected routing.

    Raises:
        InvalidInputError: an argument is not positive.
    """
    for name, value in (("batch", batch), ("context_tokens", context_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidInputError(f"{name}: expected a whole number above 0, not {value!r}")
    if not (math.isfinite(tpot_s) and tpot_s > 0):
        raise InvalidInputError(f"tpot_s: expected seconds above 0, not {tpot_s!r}")
    sources = () if source_tokens is None else (source_tokens,) * batch
    return with_skewed_routing(decode_step((context_tokens,) * batch, source_tokens=sources), arch, zipf_exponent)


def memory(
    arch: Architecture, storage: StoragePlan, *, batch: int, context_tokens: int,
    parallel: Parallelism = SINGLE_DEVICE, source_tokens: int | None = None,
) -> Memory:  # fmt: skip
    """Weights, KV cache and state of a layout over all its devices; weights without MTP layers.

    Data-parallel groups hold copies of everything outside the routed experts, ranks beyond the KV heads copies of the
    cache. Activations and the engine's own buffers are not in it: `Assumptions.usable_memory` leaves room for them.
    """
    copies = kv_elements = state_bits = 0.0
    for stack, kept_tokens in zip(arch.stacks, (context_tokens, source_tokens or 0), strict=False):
        spread = footprint(stack, storage, parallel)
        copies += sum(spread.always.values()) - sum(footprint(stack, storage).always.values())
        for mixer, layers in spread.mixers:
            alike = layers * batch * parallel.tensor_copies(mixer.tp_ways)
            kv_elements += alike * mixer.kv_cached(kept_tokens)
            state_bits += alike * (mixer.state_elements * storage.state.bits + mixer.conv_elements * storage.plain.bits)
    tables = (
        storage.format_of(Part.EMBEDDING, weight.module, weight).bytes_of(weight.shape) for weight in arch.embedding
    )
    outside = sum(tables) + (0.0 if arch.tied else footprint(arch, storage).lm_head)
    return Memory(
        weights_bytes=stored_bytes(arch, storage) + copies + (parallel.replicas - 1) * outside,
        kv_bytes=kv_elements * storage.kv.bits / 8,
        state_bytes=state_bits / 8,
    )
