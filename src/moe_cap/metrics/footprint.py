"""The bytes of a model's tensors in one storage and one parallel layout, summed once so that steps are cheap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from moe_cap.architecture import Architecture, Layer, Mixer, MoeFfn, Part
from moe_cap.architecture.weights import Weight
from moe_cap.metrics.parallelism import SINGLE_DEVICE, Parallelism
from moe_cap.precision import StoragePlan
from moe_cap.precision.plan import layers_stored_alike


@dataclass(frozen=True, slots=True)
class ExpertGroup:
    """MoE layers whose experts weigh the same.

    Attributes:
        rows: which rows of a trace belong to these layers.
        expert_bytes: stored bytes of one routed expert.
    """

    rows: tuple[int, ...]
    moe: MoeFfn
    expert_bytes: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a step reads whatever its tokens, and what it reads per expert, per sequence and per token.

    Attributes:
        always: bytes by part that every step reads, over all ranks; output head and embedding are not in it.
        lm_head: bytes of the output projection, over all ranks.
        embedding_row: bytes of one row of the token embedding.
        experts: MoE layers grouped by the weight of an expert.
        mixers: every kind of mixer, with the number of layers that have it.
    """

    always: dict[Part, float]
    lm_head: float
    token_rows: int
    experts: tuple[ExpertGroup, ...]
    mixers: tuple[tuple[Mixer, int], ...]


def _bytes(storage: StoragePlan, part: Part, path: str, weight: Weight) -> int:
    module = path.rpartition(".")[0]
    return storage.format_of(part, module, weight).bytes_of(weight.shape)


def expert_bytes(layer: Layer, storage: StoragePlan) -> int:
    """Stored bytes of one routed expert of a layer, 0 for a dense layer."""
    if not isinstance(layer.feed_forward, MoeFfn):
        return 0
    expert = layer.feed_forward.expert
    return sum(_bytes(storage, Part.EXPERTS, f"{layer.path}.{weight.name}", weight) for weight in expert)


def _outside_experts(arch: Architecture, storage: StoragePlan) -> Iterator[tuple[Part, Weight, int, int]]:
    """Every tensor of the decoder but its routed experts and its output head: part, tensor, bytes, how many alike."""
    outside = ((Part.EMBEDDING, arch.embedding), (Part.NORM, arch.norms), (Part.OTHER, arch.other))
    for part, tensors in outside:
        yield from ((part, weight, _bytes(storage, part, weight.name, weight), 1) for weight in tensors)
    for layer, number in layers_stored_alike(arch, storage):
        for part, weight, _ in layer.weights():
            if part is not Part.EXPERTS:
                yield part, weight, _bytes(storage, part, f"{layer.path}.{weight.name}", weight), number


@lru_cache(maxsize=64)
def _always_and_rows(arch: Architecture, storage: StoragePlan) -> tuple[dict[tuple[Part, int | None], int], int]:
    """Bytes that every step reads, by part and by the slices that tensor parallelism can cut the tensor into.

    Beside them the bytes of the rows that one token reads in lookup tables.
    """
    always: Counter[tuple[Part, int | None]] = Counter()
    rows = 0
    for part, weight, size, number in _outside_experts(arch, storage):
        if weight.lookup:
            rows += number * weight.lookup * -(-size // weight.shape[0])
        else:
            always[part, weight.tp_ways] += number * size
    return dict(always), rows


@lru_cache(maxsize=64)
def _experts(arch: Architecture, storage: StoragePlan) -> tuple[ExpertGroup, ...]:
    groups: dict[tuple[int, int], list[int]] = {}
    blocks = {id(moe): moe for moe in arch.moe_blocks}
    mixtures = (layer for layer in arch.layers if isinstance(layer.feed_forward, MoeFfn))
    for row, layer in enumerate(mixtures):
        groups.setdefault((id(layer.feed_forward), expert_bytes(layer, storage)), []).append(row)
    return tuple(ExpertGroup(tuple(rows), blocks[block], size) for (block, size), rows in groups.items())


@lru_cache(maxsize=256)
def footprint(arch: Architecture, storage: StoragePlan, parallel: Parallelism = SINGLE_DEVICE) -> Footprint:
    """The footprint of a model's decoder; remembered for the last few (architecture, storage, layout).

    Tensors are walked once per architecture and storage; further layouts only multiply, so a planner can try many.
    """
    always = dict.fromkeys(Part, 0.0)
    widths, token_rows = _always_and_rows(arch, storage)
    for (part, ways), size in widths.items():
        always[part] += size * parallel.copies(ways)
    kinds = Counter(id(layer.mixer) for layer in arch.layers)
    mixers = {id(layer.mixer): layer.mixer for layer in arch.layers}
    head = sum(_bytes(storage, Part.LM_HEAD, weight.name, weight) for weight in arch.lm_head)
    return Footprint(
        always=always,
        lm_head=head * parallel.replicas,
        token_rows=token_rows,
        experts=_experts(arch, storage),
        mixers=tuple((mixers[kind], number) for kind, number in kinds.items()),
    )
