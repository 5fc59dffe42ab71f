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


def _outside_experts(arch: Architecture) -> Iterator[tuple[Part, str, Weight]]:
    """Every tensor of the decoder but its routed experts and its output head: part, full name, tensor."""
    yield from ((Part.EMBEDDING, weight.name, weight) for weight in arch.embedding)
    yield from ((Part.NORM, weight.name, weight) for weight in arch.norms)
    yield from ((Part.OTHER, weight.name, weight) for weight in arch.other)
    for layer in arch.layers:
        named = ((part, f"{layer.path}.{weight.name}", weight) for part, weight, _ in layer.weights())
        yield from (item for item in named if item[0] is not Part.EXPERTS)


@lru_cache(maxsize=64)
def _widths(arch: Architecture, storage: StoragePlan) -> dict[tuple[Part, int | None], int]:
    """Bytes that every step reads, by part and by the slices that tensor parallelism can cut the tensor into."""
    sizes: Counter[tuple[Part, int | None]] = Counter()
    for part, path, weight in _outside_experts(arch):
        if not weight.lookup:
            sizes[part, weight.tp_ways] += _bytes(storage, part, path, weight)
    return dict(sizes)


@lru_cache(maxsize=64)
def _token_rows(arch: Architecture, storage: StoragePlan) -> int:
    """Bytes of the rows that one token reads in lookup tables."""
    tables = ((part, path, weight) for part, path, weight in _outside_experts(arch) if weight.lookup)
    return sum(-(-_bytes(storage, *table) // table[2].shape[0]) for table in tables)


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
    for (part, ways), size in _widths(arch, storage).items():
        always[part] += size * parallel.copies(ways)
    kinds = Counter(id(layer.mixer) for layer in arch.layers)
    mixers = {id(layer.mixer): layer.mixer for layer in arch.layers}
    head = sum(_bytes(storage, Part.LM_HEAD, weight.name, weight) for weight in arch.lm_head)
    return Footprint(
        always=always,
        lm_head=head * parallel.replicas,
        token_rows=_token_rows(arch, storage),
        experts=_experts(arch, storage),
        mixers=tuple((mixers[kind], number) for kind, number in kinds.items()),
    )
