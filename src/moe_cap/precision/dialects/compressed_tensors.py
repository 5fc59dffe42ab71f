"""`quant_method: compressed-tensors` (llm-compressor, Kimi): groups of modules, each with a scheme of its own."""

from __future__ import annotations

from moe_cap.architecture.config import Config
from moe_cap.errors import UnknownPrecisionError
from moe_cap.precision.dialects.section import LINEAR_AND_HEAD, Section, kv_of_bits
from moe_cap.precision.formats import (
    WeightFormat,
    fp8_block,
    fp8_per_channel,
    fp8_per_tensor,
    mxfp4,
    mxfp6,
    mxfp8,
    nvfp4,
    plain_format,
)
from moe_cap.precision.names import ModuleNames
from moe_cap.precision.plan import StoragePlan, StorageRule

SHAPE_BITS = 2 * 64  # weight_shape, an int64 pair beside every packed tensor
STRATEGY_GROUPS = {"channel": (1, 0), "tensor": (0, 0)}


def _integer_format(weights: Config, bits: int, scale_bits: int, packing: str) -> WeightFormat:
    strategy = weights.word("strategy", default="channel")
    group = (1, weights.size("group_size")) if strategy == "group" else STRATEGY_GROUPS.get(strategy)
    if group is None:
        raise weights.complain("strategy", f"{strategy!r}: expected group, channel or tensor")
    packed = packing == "pack-quantized"
    zeros = 0 if weights.flag("symmetric", default=True) else (bits if packed else 8)
    index = 32 if packed and weights.word("actorder", default="") in {"group", "dynamic"} else 0
    return WeightFormat(
        f"int{bits}", bits if packed else 8, group, scale_bits, zeros,
        column_bits=index, constant_bits=SHAPE_BITS if packed else 0,
    )  # fmt: skip


def _float_format(weights: Config, bits: int, scale_bits: int, packing: str, activations: int) -> WeightFormat:
    if bits == 4:
        return mxfp4() if packing == "mxfp4-pack-quantized" else nvfp4(1 + activations)
    if bits == 6:
        return mxfp6()
    strategy = weights.word("strategy", default="tensor")
    if strategy == "block":
        rows, columns = weights.items("block_structure", kind=int, length=2) or (128, 128)
        return fp8_block(rows, columns, scale_bits)
    if strategy == "channel":
        return fp8_per_channel(scale_bits)
    return mxfp8() if strategy == "group" else fp8_per_tensor()


def _format(weights: Config, section: Section, packing: str, activations: int) -> WeightFormat:
    bits = weights.size("num_bits")
    named = weights.word("scale_dtype", default="").removeprefix("torch.")
    scale_bits = 8 if named == "uint8" else plain_format(named).bits if named else section.plain.bits
    kind = weights.word("type", default="int")
    if kind == "int":
        return _integer_format(weights, bits, scale_bits, packing)
    if kind == "float" and bits in {4, 6, 8}:
        return _float_format(weights, bits, scale_bits, packing, activations)
    raise UnknownPrecisionError(f"quantization_config: compressed-tensors {kind}{bits} is no format that we can count")


def _compute_dtype(group: Config) -> str | None:
    """The dtype of the activations' scheme; None where they are left alone (weight only)."""
    if not group.has("input_activations"):
        return None
    activations = group.section("input_activations")
    bits, kind = activations.size("num_bits"), activations.word("type", default="int")
    return f"{'fp' if kind == 'float' else 'int'}{4 if bits <= 4 else 8}"


def parse(section: Section) -> StoragePlan:
    """Every group's targets ("Linear" is all of them) save what `ignore` lists."""
    groups = section.config.section("config_groups")
    rules, name, compute = [], None, None
    for key in section.config.mapping("config_groups"):
        group = groups.section(key)
        if not group.has("weights"):
            continue
        packing = group.word("format", default=section.config.word("format", default=""))
        weight_format = _format(group.section("weights"), section, packing, int(group.has("input_activations")))
        targets = [target for target in group.items("targets", kind=str) or () if target != "Linear"]
        rules.append(StorageRule(weight_format, LINEAR_AND_HEAD, ModuleNames(targets) if targets else None))
        if name is None:
            name, compute = weight_format.name, _compute_dtype(group)
    if name is None:
        raise section.config.complain("config_groups", "expected at least one group with weights")
    has_kv = section.config.has("kv_cache_scheme")
    kv = kv_of_bits(section.config.section("kv_cache_scheme").size("num_bits")) if has_kv else None
    return section.plan(name, (*section.skipping("ignore"), *rules), compute_dtype=compute, kv=kv)
