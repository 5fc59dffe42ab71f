"""What a cache keeps, and the bytes that cross a link when experts are kept elsewhere."""

from __future__ import annotations

from moe_cap.architecture import Architecture, Layer, MoeFfn
from moe_cap.errors import InvalidInputError
from moe_cap.metrics.footprint import expert_bytes
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step


def check_stages(arch: Architecture, parallel: Parallelism) -> None:
    """Refuse a pipeline that would have stages without a layer.

    Raises:
        InvalidInputError: more stages than layers.
    """
    if parallel.pp > arch.num_layers:
        raise InvalidInputError(f"pp_size {parallel.pp} is more than the {arch.num_layers} layers of the model")


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
