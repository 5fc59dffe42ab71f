"""`quant_method: fp8`: DeepSeek's blocks, or a scale per tensor; and FBGEMM's scale per row."""

from __future__ import annotations

from moe_cap.precision.dialects import modelopt
from moe_cap.precision.dialects.section import Section
from moe_cap.precision.formats import fp8_block, fp8_per_channel, fp8_per_tensor
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule


def parse(section: Section) -> StoragePlan:
    """Every matrix of attention, experts and MLPs, save the modules that are listed.

    The scales are fp32, also where `scale_fmt` says that their values are powers of two: DeepSeek-V3.1 and V3.2 store
    them so. Layers that `quantized_layers` names have the format given there (NVIDIA's NVFP4 experts).
    """
    config = section.config
    block = config.items("weight_block_size", kind=int)
    static = config.word("activation_scheme", default="dynamic") == "static"
    weight_format = fp8_block(*block) if block else fp8_per_tensor(2 if static else 1)
    named = modelopt.layer_rules(section)
    skipped = section.skipping("modules_to_not_convert", "ignored_layers")
    rules = (*named, *skipped, StorageRule(weight_format, LINEAR_PARTS))
    return section.plan(named[0].format.name if named else "fp8", rules, compute_dtype="fp4" if named else "fp8")


def parse_fbgemm(section: Section) -> StoragePlan:
    """A scale per output row (Llama's own fp8 checkpoints)."""
    rules = (*section.skipping("modules_to_not_convert"), StorageRule(fp8_per_channel(), LINEAR_PARTS))
    return section.plan("fp8", rules, compute_dtype="fp8")
