"""`quant_method: modelopt`: NVIDIA's TensorRT Model Optimizer, in config.json or in hf_quant_config.json."""

from __future__ import annotations

from moe_cap.architecture.weights import Part
from moe_cap.errors import UnknownPrecisionError
from moe_cap.precision.dialects.section import LINEAR_AND_HEAD, Section, kv_of_bits
from moe_cap.precision.formats import (
    WeightFormat,
    fp8_block,
    fp8_per_channel,
    fp8_per_tensor,
    int4_grouped,
    int8_per_channel,
    mxfp4,
    mxfp8,
    nvfp4,
)
from moe_cap.precision.names import ModuleNames
from moe_cap.precision.plan import StoragePlan, StorageRule

NAMED_PARTS = frozenset(Part) - {Part.NORM, Part.EMBEDDING, Part.OTHER}

ALGORITHMS: dict[str, tuple[WeightFormat, str | None]] = {
    "FP8": (fp8_per_tensor(2), "fp8"),
    "FP8_PB_WO": (fp8_block(), None),
    "FP8_PER_CHANNEL_PER_TOKEN": (fp8_per_channel(), "fp8"),
    "NVFP4": (nvfp4(2), "fp4"),
    "W4A16_NVFP4": (nvfp4(1), None),
    "MXFP4": (mxfp4(), "fp4"),
    "MXFP8": (mxfp8(), "fp8"),
    "W4A16_AWQ": (int4_grouped(), None),
    "W4A8_AWQ": (int4_grouped(), "fp8"),
    "W8A16": (int8_per_channel(32), None),
    "W8A8_SQ_PER_CHANNEL": (int8_per_channel(32), "int8"),
}
MIXED = "MIXED_PRECISION"


def _algorithm(name: str) -> tuple[WeightFormat, str | None]:
    """Format of the weights, and dtype that the matrices are multiplied in (None: that of the activations)."""
    if name not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise UnknownPrecisionError(f"quantization_config.quant_algo is {name!r}: expected one of {known}")
    return ALGORITHMS[name]


def layer_rules(section: Section) -> tuple[StorageRule, ...]:
    """A rule for each algorithm that `quantized_layers` names, the one of most layers first."""
    by_algorithm: dict[str, list[str]] = {}
    for module, layer in section.config.objects("quantized_layers").items():
        algorithm = layer.get("quant_algo")
        if not isinstance(algorithm, str):
            raise section.config.complain(
                f"quantized_layers.{module}", f"quant_algo is {algorithm!r}: expected a string"
            )
        by_algorithm.setdefault(algorithm, []).append(module)
    most_first = sorted(by_algorithm.items(), key=lambda item: -len(item[1]))
    return tuple(StorageRule(_algorithm(name)[0], NAMED_PARTS, ModuleNames(modules)) for name, modules in most_first)


def _kv(section: Section) -> WeightFormat | None:
    if section.config.has("kv_cache_scheme"):
        return kv_of_bits(section.config.section("kv_cache_scheme").size("num_bits"))
    return kv_of_bits(8) if section.config.word("kv_cache_quant_algo", default="").upper() == "FP8" else None


def parse(section: Section) -> StoragePlan:
    """One algorithm for every Linear save the excluded ones, or an algorithm per layer (`MIXED_PRECISION`).

    A mixed checkpoint computes in the dtype of the algorithm that most modules have.
    """
    algorithm = section.config.word("quant_algo")
    skipped = section.skipping("ignore", "exclude_modules")
    if algorithm != MIXED:
        weight_format, compute = _algorithm(algorithm)
        rules = (*skipped, StorageRule(weight_format, LINEAR_AND_HEAD))
        return section.plan(weight_format.name, rules, compute_dtype=compute, kv=_kv(section))
    named = layer_rules(section)
    if not named:
        raise section.config.complain("quantized_layers", f"{MIXED} needs the algorithm of every layer")
    compute = next(dtype for weight_format, dtype in ALGORITHMS.values() if weight_format == named[0].format)
    return section.plan(named[0].format.name, (*skipped, *named), compute_dtype=compute, kv=_kv(section))
