"""A model's exact structure, and what it weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Protocol

from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.weights import Part, Weight, count_parameters


class StorageWidth(Protocol):
    """All that counting cached bytes needs to know about a format."""

    @property
    def bits(self) -> int:
        """Width of a value."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer.

    Attributes:
        path: where it lies in the checkpoint ("model.layers.3"), the prefix of its tensors' names.
        norms: tensors of the norms around mixer and feed-forward.
        other: tensors that belong to no part (per-layer embeddings, residual gates), read by every token.
    """

    path: str
    mixer: Mixer
    feed_forward: FeedForward
    norms: tuple[Weight, ...]
    other: tuple[Weight, ...] = ()

    def weights(self) -> Iterator[tuple[Part, Weight, int]]:
        """Every tensor with its part and how many times it exists (experts are alike, so one stands for all)."""
        yield from ((Part.ATTENTION, weight, 1) for weight in self.mixer.weights)
        yield from ((Part.NORM, weight, 1) for weight in self.norms)
        yield from ((Part.OTHER, weight, 1) for weight in self.other)
        if isinstance(self.feed_forward, DenseFfn):
            yield from ((Part.DENSE_FFN, weight, 1) for weight in self.feed_forward.weights)
            return
        moe = self.feed_forward
        yield from ((Part.ROUTER, weight, 1) for weight in moe.router)
        yield from ((Part.EXPERTS, weight, moe.num_experts) for weight in moe.expert)
        yield from ((Part.SHARED_EXPERTS, weight, 1) for weight in moe.shared)
        yield from ((Part.DENSE_FFN, weight, 1) for weight in moe.dense)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameter counts by part; the parts sum to `total`.

    `active` is `total` without the routed experts that a token is not sent to. It contains the whole embedding and
    lm_head, as in the model names of Mixtral (12.9 of 46.7 B) and Qwen3 (A3B).
    """

    total: int
    active: int
    attention: int
    router: int
    experts: int
    shared_experts: int
    dense_ffn: int
    embedding: int
    lm_head: int
    norm: int
    other: int

    def as_dict(self) -> dict[str, int]:
        """By name, in the order above."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _parameters(counts: dict[Part, int], inactive: int) -> Parameters:
    total = sum(counts.values())
    return Parameters(total=total, active=total - inactive, **{part.value: counts.get(part, 0) for part in Part})


def _count_layer(layer: Layer) -> tuple[dict[Part, int], int]:
    counts = dict.fromkeys(Part, 0)
    for part, weight, copies in layer.weights():
        counts[part] += weight.num_parameters * copies
    moe = layer.feed_forward
    if not isinstance(moe, MoeFfn):
        return counts, 0
    unused = moe.num_experts - moe.computed_top_k
    return counts, round(unused * sum(weight.num_parameters for weight in moe.expert))


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """What `config.json` says about a model, exactly. Compared by identity, so that accounts of it can be remembered.

    Attributes:
        model_type: the family, as transformers names it.
        layers: decoder layers in order.
        embedding: tensors of the token embedding.
        lm_head: tensors of the output projection; the embedding's matrix once more when `tied`.
        tied: the output projection is the embedding's own matrix: read, but neither stored nor counted twice.
        norms: tensors of the final norm.
        other: further tensors outside the layers that every token needs.
        encoder: what runs once over the source of an encoder-decoder model, up to the keys and values that the decoder
            attends to; it looks tokens up in the decoder's embedding. A pass of it is a step of its own.
        mtp: multi-token-prediction layers, counted apart and off by default.
        mtp_unread: at least as many the config or the family's checkpoints name, but nobody has written down how they
            are built.
    """

    model_type: str
    hidden_size: int
    vocab_size: int
    layers: tuple[Layer, ...]
    embedding: tuple[Weight, ...]
    lm_head: tuple[Weight, ...]
    norms: tuple[Weight, ...]
    tied: bool = False
    other: tuple[Weight, ...] = ()
    encoder: Architecture | None = None
    mtp: tuple[Layer, ...] = ()
    mtp_unread: int = 0

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.layers)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have routed experts; a trace has one row for each, in this order."""
        return tuple(i for i, layer in enumerate(self.layers) if isinstance(layer.feed_forward, MoeFfn))

    @property
    def moe_blocks(self) -> tuple[MoeFfn, ...]:
        """The mixture of every MoE layer, in layer order."""
        return _moe_blocks(self)

    @property
    def num_experts(self) -> int:
        """Routed experts of an MoE layer (the most of any); 1 for a dense model, whose one expert every token uses."""
        return max((moe.num_experts for moe in self.moe_blocks), default=1)

    @property
    def top_k(self) -> int:
        """Experts per token of an MoE layer (the most of any); 1 for a dense model."""
        return max((moe.top_k for moe in self.moe_blocks), default=1)

    @property
    def stacks(self) -> tuple[Architecture, ...]:
        """What runs apart: the model itself, and its encoder if it has one."""
        return (self,) if self.encoder is None else (self, self.encoder)

    def weights(self) -> Iterator[tuple[Part, str, Weight, int]]:
        """Every stored tensor of the model without MTP: part, full name, tensor, how many there are alike."""
        for part, tensors in self.outside_layers():
            yield from ((part, weight.name, weight, 1) for weight in tensors)
        for layer in self.layers:
            yield from ((part, f"{layer.path}.{weight.name}", weight, n) for part, weight, n in layer.weights())
        if self.encoder is not None:
            yield from (item for item in self.encoder.weights() if item[0] is not Part.EMBEDDING)

    def outside_layers(self) -> Iterator[tuple[Part, tuple[Weight, ...]]]:
        """Stored tensors that belong to no layer, by part."""
        yield Part.EMBEDDING, self.embedding
        yield Part.LM_HEAD, tuple(weight for weight in self.lm_head if not (self.tied and weight.is_matrix))
        yield Part.NORM, self.norms
        yield Part.OTHER, self.other

    def parameters(self) -> Parameters:
        """Parameters of the model without its MTP layers, by part."""
        return _parameters(*self._count())

    def _count(self) -> tuple[dict[Part, int], int]:
        """Parameters by part, and how many of them a token does not use."""
        counts, inactive = dict.fromkeys(Part, 0), 0
        for part, tensors in self.outside_layers():
            counts[part] += count_parameters(tensors)
        kinds = [(*_count_layer(layer), number) for layer, number in self.kinds_of_layers()]
        if self.encoder is not None:
            kinds.append((*self.encoder._count(), 1))
            counts[Part.EMBEDDING] -= count_parameters(self.encoder.embedding)
        for kind_counts, kind_inactive, number in kinds:
            inactive += number * kind_inactive
            counts = {part: counts[part] + number * kind_counts[part] for part in Part}
        return counts, inactive

    def kinds_of_layers(self) -> tuple[tuple[Layer, int], ...]:
        """One of each kind of layer with their number: layers of a kind have the same tensors under other paths."""
        first: dict[tuple[int, ...], Layer] = {}
        numbers: Counter[tuple[int, ...]] = Counter()
        for layer in self.layers:
            kind = (id(layer.mixer), id(layer.feed_forward), id(layer.norms), id(layer.other))
            first.setdefault(kind, layer)
            numbers[kind] += 1
        return tuple((first[kind], number) for kind, number in numbers.items())

    def parameters_by_layer(self) -> tuple[Parameters, ...]:
        """Parameters of each decoder layer, by part."""
        return tuple(_parameters(*_count_layer(layer)) for layer in self.layers)

    def encoder_parameters(self) -> int:
        """Parameters of the encoder's pass, which `parameters` holds too; 0 without an encoder."""
        if self.encoder is None:
            return 0
        counted = self.encoder.parameters()
        return counted.total - counted.embedding

    def mtp_parameters(self) -> Parameters:
        """Parameters of the multi-token-prediction layers, which `parameters` leaves out."""
        counts, inactive = dict.fromkeys(Part, 0), 0
        for layer in self.mtp:
            layer_counts, layer_inactive = _count_layer(layer)
            inactive += layer_inactive
            counts = {part: number + layer_counts[part] for part, number in counts.items()}
        return _parameters(counts, inactive)

    def kv_bytes_per_token(self, kv_format: StorageWidth) -> int:
        """Bytes that a token adds to the cache over all layers, before any window drops the oldest."""
        return -(-self.kv_elements_per_token() * kv_format.bits // 8)

    def state_bytes(self, state_format: StorageWidth, plain: StorageWidth) -> int:
        """Bytes that each sequence keeps over all layers whatever its length: recurrent states, convolution windows."""
        windows = sum(layer.mixer.conv_elements for layer in self.layers)
        return -(-(self.state_elements() * state_format.bits + windows * plain.bits) // 8)

    def kv_elements_per_token(self) -> int:
        """Values that a token adds to the cache over all layers, before any window drops the oldest."""
        return sum(layer.mixer.kv_elements_per_token for layer in self.layers)

    def state_elements(self) -> int:
        """Values of recurrent state that each sequence keeps over all layers."""
        return sum(layer.mixer.state_elements for layer in self.layers)


@lru_cache(maxsize=64)
def _moe_blocks(arch: Architecture) -> tuple[MoeFfn, ...]:
    """Remembered, because every step that is counted asks."""
    return tuple(layer.feed_forward for layer in arch.layers if isinstance(layer.feed_forward, MoeFfn))
