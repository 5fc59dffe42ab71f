"""Which tensor of a model is stored in which format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Part, Weight
from moe_cap.errors import UnknownPrecisionError
from moe_cap.precision.formats import (
    BF16,
    FP16,
    FP32,
    WeightFormat,
    fp8_block,
    int4_grouped,
    int8_per_channel,
    mxfp4,
    nvfp4,
    plain_format,
)
from moe_cap.precision.names import ModuleNames

LINEAR_PARTS = frozenset({Part.ATTENTION, Part.EXPERTS, Part.SHARED_EXPERTS, Part.DENSE_FFN})


@dataclass(frozen=True, slots=True)
class StorageRule:
    """The format of the matrices of some parts, of some modules, or of both; None stands for all."""

    format: WeightFormat
    parts: frozenset[Part] | None = None
    modules: ModuleNames | None = None

    def covers(self, part: Part, module: str) -> bool:
        """Whether it speaks about this matrix."""
        return (self.parts is None or part in self.parts) and (self.modules is None or module in self.modules)


@dataclass(frozen=True, slots=True, eq=False)
class StoragePlan:
    """How a model is stored. Compared by identity, so that accounts of it can be remembered.

    Attributes:
        name: the precision as people call it.
        plain: the format of everything that no rule covers, of vectors in any case, and of activations.
        rules: formats of matrices; the first that covers one decides.
        kv: the format of the KV cache.
        state: the format of recurrent state.
        compute_dtype: what the matrix units compute in: the peak that a utilisation refers to.
        tensors: formats of single tensors by their full name in the checkpoint, where a file lists them; they go before
            everything else.
    """

    name: str
    plain: WeightFormat = BF16
    rules: tuple[StorageRule, ...] = ()
    kv: WeightFormat = BF16
    state: WeightFormat = FP32
    compute_dtype: str = "bf16"
    tensors: Mapping[str, WeightFormat] = field(default_factory=dict)

    def format_of(self, part: Part, module: str, weight: Weight) -> WeightFormat:
        """The format of one tensor; `module` is the full path of the module that holds it."""
        if self.tensors:
            listed = self.tensors.get(f"{module.rstrip('.')}.{weight.name.rpartition('.')[2]}".lstrip("."))
            if listed is not None:
                return listed
        if weight.dtype is not None:
            return plain_format(weight.dtype)
        if weight.is_matrix:
            for rule in self.rules:
                if rule.covers(part, module):
                    return rule.format
        return self.plain

    def with_kv(self, name: str) -> StoragePlan:
        """The same weights with a KV cache of another dtype."""
        return replace(self, kv=plain_format(name))


def _uniform(name: str, weight_format: WeightFormat, parts: frozenset[Part], compute_dtype: str) -> StoragePlan:
    return StoragePlan(name, rules=(StorageRule(weight_format, parts),), compute_dtype=compute_dtype)


UNIFORM: dict[str, StoragePlan] = {
    "fp32": StoragePlan("fp32", plain=FP32, kv=FP32, compute_dtype="fp32"),
    "fp16": StoragePlan("fp16", plain=FP16, kv=FP16, compute_dtype="fp16"),
    "bf16": StoragePlan("bf16"),
    "fp8": _uniform("fp8", fp8_block(), LINEAR_PARTS, "fp8"),
    "int8": _uniform("int8", int8_per_channel(), LINEAR_PARTS, "bf16"),
    "int4": _uniform("int4", int4_grouped(), LINEAR_PARTS, "bf16"),
    "mxfp4": _uniform("mxfp4", mxfp4(), frozenset({Part.EXPERTS}), "bf16"),
    "nvfp4": _uniform("nvfp4", nvfp4(), LINEAR_PARTS, "fp4"),
}
ALIASES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "w8a16": "int8", "w4a16": "int4"}


def uniform_storage(precision: str) -> StoragePlan:
    """What people mean by a precision's name when they know nothing more.

    Matrices of attention, experts and MLPs are stored in it; embedding, output head, router, norms and biases stay in
    bf16, as quantisers leave them. fp8 has a scale per 128 x 128 block, int8 one per output row, int4 one per 128
    inputs (symmetric), nvfp4 one per 16 and per tensor. mxfp4 covers the routed experts only, as in gpt-oss, and
    computes in bf16 like int8 and int4 (weight only); fp8 and nvfp4 compute in their own format.

    Raises:
        UnknownPrecisionError: no such precision.
    """
    name = precision.lower()
    try:
        return UNIFORM[ALIASES.get(name, name)]
    except KeyError:
        known = ", ".join(UNIFORM)
        raise UnknownPrecisionError(f"unknown precision {precision!r}: expected one of {known}") from None


def storage_of(arch: Architecture, precision: str) -> StoragePlan:
    """`uniform_storage`, refused for a model that has nothing to store that way.

    Raises:
        UnknownPrecisionError: no such precision, or mxfp4 for a model without experts.
    """
    plan = uniform_storage(precision)
    covered = [rule.parts for rule in plan.rules if rule.parts is not None]
    if covered and not any(part in parts for parts in covered for part, *_ in arch.weights()):
        raise UnknownPrecisionError(f"{precision} stores routed experts only, and {arch.model_type} has none")
    return plan


def layers_stored_alike(arch: Architecture, storage: StoragePlan) -> tuple[tuple[Layer, int], ...]:
    """One of all layers that are stored alike, with their number; whatever names modules tells every layer apart."""
    if storage.tensors or any(rule.modules is not None for rule in storage.rules):
        return tuple((layer, 1) for layer in arch.layers)
    return arch.kinds_of_layers()


@lru_cache(maxsize=64)
def stored_bytes(arch: Architecture, storage: StoragePlan) -> int:
    """Bytes of all weights without the MTP layers, as a checkpoint stores them."""
    total = 0
    for part, tensors in arch.outside_layers():
        total += sum(storage.format_of(part, weight.module, weight).bytes_of(weight.shape) for weight in tensors)
    for layer, number in layers_stored_alike(arch, storage):
        for part, weight, copies in layer.weights():
            weight_format = storage.format_of(part, f"{layer.path}.{weight.module}", weight)
            total += number * copies * weight_format.bytes_of(weight.shape)
    if arch.encoder is None:
        return total
    table = sum(storage.plain.bytes_of(weight.shape) for weight in arch.encoder.embedding)
    return total + stored_bytes(arch.encoder, storage) - table
