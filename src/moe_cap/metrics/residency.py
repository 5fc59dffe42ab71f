"""What lies where: bytes that each device holds, and bytes that cross a link when experts are kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace

from moe_cap.architecture import Architecture, Layer, MoeFfn, Part
from moe_cap.architecture.weights import Weight
from moe_cap.errors import InvalidInputError
from moe_cap.metrics.footprint import expert_bytes
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step


@dataclass(frozen=True, slots=True)
class DeviceBytes:
    """Bytes of weights that one rank of a pipeline stage holds; routed experts apart, since they can be offloaded."""

    stage: int
    rank: int
    experts: int
    rest: int

    @property
    def total(self) -> int:
        """All weights of the rank."""
        return self.experts + self.rest


def _slice(size: int, ways: int | None, tp: int) -> int:
    """The largest slice of a tensor of `size` bytes that is cut into no more than `ways`."""
    return -(-size // (tp if ways is None else min(tp, ways)))


def _size(storage: StoragePlan, part: Part, path: str, weight: Weight) -> int:
    return storage.format_of(part, path.rpartition(".")[0], weight).bytes_of(weight.shape)


def _layer_rest(layer: Layer, storage: StoragePlan, tp: int) -> int:
    return sum(
        _slice(_size(storage, part, f"{layer.path}.{weight.name}", weight), weight.tp_ways, tp)
        for part, weight, _ in layer.weights()
        if part is not Part.EXPERTS
    )


def _share(total: int, groups: int, index: int) -> int:
    """How many of `total` things group `index` of `groups` gets when they are dealt out evenly."""
    return total // groups + (index < total % groups)


def _layer_experts(layer: Layer, storage: StoragePlan, parallel: Parallelism, rank: int) -> int:
    """Expert parallelism deals experts out whole; within a group, and without it, every expert is cut."""
    if not isinstance(layer.feed_forward, MoeFfn):
        return 0
    groups = parallel.ep
    owned = _share(layer.feed_forward.num_experts, groups, rank % groups)
    return -(-owned * expert_bytes(layer, storage) // (parallel.stage_size // groups))


def check_stages(arch: Architecture, parallel: Parallelism) -> None:
    """Refuse a pipeline that would have stages without a layer.

    Raises:
        InvalidInputError: more stages than layers.
    """
    if parallel.pp > arch.num_layers:
        raise InvalidInputError(f"pp_size {parallel.pp} is more than the {arch.num_layers} layers of the model")


def device_bytes(arch: Architecture, storage: StoragePlan, parallel: Parallelism) -> tuple[DeviceBytes, ...]:
    """Bytes of weights on every rank, stage by stage. The first stage holds the embedding, the last the output head.

    Layers are dealt out to stages evenly. A tied output head is held once more where the last stage is not the first.
    An encoder and its decoder share their ranks.

    Raises:
        InvalidInputError: more stages than layers, or stages of a model with an encoder, which no engine offers.
    """
    if arch.encoder is not None:
        if parallel.pp > 1:
            raise InvalidInputError(f"pp_size {parallel.pp} for {arch.model_type}: expected 1 with an encoder")
        arch = _one_stack(arch, arch.encoder)
    check_stages(arch, parallel)
    held, first = [], 0
    for stage in range(parallel.pp):
        last = first + _share(arch.num_layers, parallel.pp, stage)
        ends = _ends(arch, storage, parallel, stage)
        rest = ends + sum(_layer_rest(layer, storage, parallel.tp) for layer in arch.layers[first:last])
        for rank in range(parallel.stage_size):
            layers = arch.layers[first:last]
            experts = sum(_layer_experts(layer, storage, parallel, rank) for layer in layers)
            held.append(DeviceBytes(stage, rank, experts, rest))
        first = last
    return tuple(held)


def _one_stack(decoder: Architecture, encoder: Architecture) -> Architecture:
    """Encoder and decoder as one stack, for what does not depend on which of them runs."""
    layers, norms = (*encoder.layers, *decoder.layers), (*encoder.norms, *decoder.norms)
    return replace(decoder, layers=layers, norms=norms, encoder=None)


def _ends(arch: Architecture, storage: StoragePlan, parallel: Parallelism, stage: int) -> int:
    """Bytes of embedding, final norm and output head on a rank of a stage."""
    is_first, is_last = stage == 0, stage == parallel.pp - 1
    tensors = [(Part.EMBEDDING, weight) for weight in arch.embedding] if is_first else []
    tensors += [(Part.OTHER, weight) for weight in arch.other] if is_first else []
    if is_last:
        tensors += [(Part.NORM, weight) for weight in arch.norms]
        shared = arch.tied and is_first
        tensors += [(Part.LM_HEAD, weight) for weight in arch.lm_head if not (shared and weight.is_matrix)]
    return sum(
        _slice(_size(storage, part, weight.name, weight), weight.tp_ways, parallel.tp) for part, weight in tensors
    )


def cache_bytes(arch: Architecture, storage: StoragePlan, context_tokens: tuple[int, ...]) -> int:
    """Bytes of KV cache and recurrent state that sequences of these lengths keep, one copy of each.

    What sources leave behind is `cache_bytes` of the encoder at their lengths.
    """
    kv = sum(layer.mixer.kv_cached(context) for context in context_tokens for layer in arch.layers)
    per_sequence = arch.state_bytes(storage.state, storage.plain)
    return -(-kv * storage.kv.bits // 8) + per_sequence * len(context_tokens)


def offload_bytes(arch: Architecture, step: Step, storage: StoragePlan, resident_share: float) -> float:
    """Bytes of routed experts that cross the link in a step when only a share of each layer's experts is resident.

    Experts are fetched as the step uses them and dropped afterwards; which are resident does not depend on how often
    they are used, so that a used expert is absent with chance 1 - resident_share. A cache that keeps the popular ones
    does better: give its measured hit rate instead.

    Raises:
        InvalidInputError: a share outside 0..1.
        TraceError: the step's routing is unknown.
    """
    if not 0 <= resident_share <= 1:
        raise InvalidInputError(f"resident_share is {resident_share}: expected 0 (all elsewhere) to 1 (all resident)")
    mixtures = (layer for layer in arch.layers if isinstance(layer.feed_forward, MoeFfn))
    used = zip(mixtures, step.routing_for(arch), strict=True)
    return (1 - resident_share) * sum(count * expert_bytes(layer, storage) for layer, count in used)


def offload_bytes_whole_layers(arch: Architecture, storage: StoragePlan, resident_layers: int) -> float:
    """Bytes that cross the link in a step when engines fetch all experts of a layer at once (accelerate's hooks do)."""
    mixtures = [layer for layer in arch.layers if isinstance(layer.feed_forward, MoeFfn)]
    if not 0 <= resident_layers <= len(mixtures):
        raise InvalidInputError(f"resident_layers is {resident_layers}: expected 0 to {len(mixtures)} MoE layers")
    absent = mixtures[resident_layers:]
    return float(sum(moe.num_experts * expert_bytes(layer, storage) for layer, moe in _with_moe(absent)))


def _with_moe(layers: list[Layer]) -> list[tuple[Layer, MoeFfn]]:
    return [(layer, layer.feed_forward) for layer in layers if isinstance(layer.feed_forward, MoeFfn)]
