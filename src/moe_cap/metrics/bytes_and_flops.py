"""Bytes and FLOPs of any step, by part (docs/metrics.md, "Bytes of a step" and "FLOPs of a step")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

from moe_cap.architecture import Architecture, Mixer, MoeFfn, Part
from moe_cap.architecture.weights import matmul_flops
from moe_cap.metrics.footprint import Footprint, footprint
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step, with_all_experts


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes of one step over all ranks. Floats, because an expectation of distinct experts is one too.

    `total_read` is the numerator of S-MBU; what is written is counted apart.
    """

    attention: float
    router: float
    experts: float
    shared_experts: float
    dense_ffn: float
    norm: float
    other: float
    lm_head: float
    embedding: float
    kv_read: float
    state_read: float
    kv_written: float
    state_written: float

    @property
    def weights_read(self) -> float:
        """All weights."""
        parts = (self.attention, self.router, self.experts, self.shared_experts, self.dense_ffn)
        return sum(parts) + self.norm + self.other + self.lm_head + self.embedding

    @property
    def total_read(self) -> float:
        """Weights, cache and state."""
        return self.weights_read + self.kv_read + self.state_read

    def as_dict(self) -> dict[str, float]:
        """By name, with the totals."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"weights_read": self.weights_read, "total_read": self.total_read}


@dataclass(frozen=True, slots=True)
class StepFlops:
    """FLOPs of one step (a multiply-add is two); `score` is what lies between tokens: QK^T, AV, recurrences."""

    attention: float
    router: float
    experts: float
    shared_experts: float
    dense_ffn: float
    other: float
    lm_head: float
    score: float

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def as_dict(self) -> dict[str, float]:
        """By name, with the total."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"total": self.total}


def _expert_bytes(reads: Footprint, activated: tuple[float, ...]) -> float:
    return sum(group.expert_bytes * sum(activated[row] for row in group.rows) for group in reads.experts)


def _alike(arch: Architecture, step: Step) -> Counter[tuple[int, int, int]]:
    """How many sequences of a step have the same context, new tokens and source, and so cost the same."""
    return Counter(zip(step.context_tokens, step.new_tokens, step.sources_for(arch), strict=True))


def step_bytes(
    arch: Architecture, step: Step, storage: StoragePlan, parallel: Parallelism = SINGLE_DEVICE
) -> StepBytes:
    """Bytes that a step must read and write at least, every term counted at its own storage width.

    The step's `activated_experts` must be known (see `routing.with_uniform_routing` for an expectation). Bytes are
    summed over all ranks, replicated tensors once for each copy.

    Raises:
        TraceError: the step's routing is unknown or does not have a row per MoE layer.
    """
    activated = step.routing_for(arch)
    reads = footprint(arch, storage, parallel)
    tokens = sum(step.new_tokens)
    sequences = sum(1 for new in step.new_tokens if new)
    kv_read = kv_written = state_bits = 0.0
    sequences_alike = _alike(arch, step)
    for mixer, layers in reads.mixers:
        copies = layers * parallel.tensor_copies(mixer.tp_ways)
        kv_read += copies * sum(
            number * (mixer.kv_read(context, new) + mixer.source_read(source, new))
            for (context, new, source), number in sequences_alike.items()
        )
        kv_written += copies * mixer.kv_elements_per_token * tokens
        bits = mixer.state_elements * storage.state.bits + mixer.conv_elements * storage.plain.bits
        state_bits += copies * bits * sequences
    kv_width = storage.kv.bits / 8
    always = reads.always
    return StepBytes(
        attention=always[Part.ATTENTION],
        router=always[Part.ROUTER],
        experts=_expert_bytes(reads, activated),
        shared_experts=always[Part.SHARED_EXPERTS],
        dense_ffn=always[Part.DENSE_FFN],
        norm=always[Part.NORM],
        other=always[Part.OTHER],
        lm_head=reads.lm_head if step.logit_rows else 0.0,
        embedding=float(reads.token_rows * tokens),
        kv_read=kv_read * kv_width,
        state_read=state_bits / 8,
        kv_written=kv_written * kv_width,
        state_written=state_bits / 8,
    )


def step_bytes_all_experts(
    arch: Architecture, step: Step, storage: StoragePlan, parallel: Parallelism = SINGLE_DEVICE
) -> StepBytes:
    """The vanilla count behind MBU: as if every expert of every layer were read."""
    return step_bytes(arch, with_all_experts(step, arch), storage, parallel)


def step_bytes_paper(
    arch: Architecture, step: Step, storage: StoragePlan, parallel: Parallelism = SINGLE_DEVICE
) -> float:
    """S_activated + S_KV as the paper writes them (arXiv 2412.07067v1, eq. 3): attention, experts and KV cache only.

    Shared experts and dense MLPs are experts that every token activates.
    """
    complete = step_bytes(arch, step, storage, parallel)
    experts = complete.experts + complete.shared_experts + complete.dense_ffn
    return complete.attention + experts + complete.kv_read + complete.state_read


def _top_k(moe: MoeFfn) -> float:
    return moe.computed_top_k


def _every_expert(moe: MoeFfn) -> float:
    return moe.num_experts


@lru_cache(maxsize=64)
def _flops_per_token(arch: Architecture, experts_used: Callable[[MoeFfn], float]) -> dict[Part, float]:
    """Matrix FLOPs of one token by part, without the output head."""
    flops = dict.fromkeys(Part, 0.0) | {Part.OTHER: float(matmul_flops(arch.other))}
    for layer, number in arch.kinds_of_layers():
        for part, weight, _ in layer.weights():
            if part is not Part.EXPERTS:
                flops[part] += number * weight.flops_per_token
        if isinstance(layer.feed_forward, MoeFfn):
            flops[Part.EXPERTS] += number * experts_used(layer.feed_forward) * matmul_flops(layer.feed_forward.expert)
    return flops


@lru_cache(maxsize=64)
def _mixer_kinds(arch: Architecture) -> tuple[tuple[Mixer, int], ...]:
    mixers = {id(layer.mixer): layer.mixer for layer in arch.layers}
    return tuple((mixers[kind], n) for kind, n in Counter(id(layer.mixer) for layer in arch.layers).items())


def _step_flops(arch: Architecture, step: Step, experts_used: Callable[[MoeFfn], float]) -> StepFlops:
    tokens, per_token = sum(step.new_tokens), _flops_per_token(arch, experts_used)
    score = sum(
        layers * number * (mixer.score_flops(context, new) + mixer.source_score_flops(source, new))
        for (context, new, source), number in _alike(arch, step).items()
        for mixer, layers in _mixer_kinds(arch)
    )
    return StepFlops(
        attention=tokens * per_token[Part.ATTENTION],
        router=tokens * per_token[Part.ROUTER],
        experts=tokens * per_token[Part.EXPERTS],
        shared_experts=tokens * per_token[Part.SHARED_EXPERTS],
        dense_ffn=tokens * per_token[Part.DENSE_FFN],
        other=tokens * per_token[Part.OTHER],
        lm_head=float(step.logit_rows * matmul_flops(arch.lm_head)),
        score=float(score),
    )


def step_flops(arch: Architecture, step: Step) -> StepFlops:
    """FLOPs that the model needs for a step; each token computes `top_k` experts, so routing does not matter."""
    return _step_flops(arch, step, _top_k)


def step_flops_all_experts(arch: Architecture, step: Step) -> StepFlops:
    """The vanilla count behind MFU: as if every token went through every expert."""
    return _step_flops(arch, step, _every_expert)


def step_flops_paper(arch: Architecture, step: Step) -> float:
    """FLOPs as the paper writes them (arXiv 2412.07067v1, eq. 4): attention projections, router, top-k experts.

    Neither score nor output head; shared experts and dense MLPs are experts that every token activates.
    """
    complete = step_flops(arch, step)
    return complete.attention + complete.router + complete.experts + complete.shared_experts + complete.dense_ffn
