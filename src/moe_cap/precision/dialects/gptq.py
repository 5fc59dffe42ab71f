"""`quant_method: gptq` (AutoGPTQ, GPTQModel, AutoRound): qweight, qzeros, scales and g_idx per matrix."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.precision.dialects.section import LINEAR_AND_HEAD, Section
from moe_cap.precision.formats import WeightFormat
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule


def parse(section: Section) -> StoragePlan:
    """`bits` per value, fp16 scale and packed zero point per group, and an int32 group index per input column.

    `dynamic` entries that begin with "-:" name modules left alone; GPTQ checkpoints never quantise the router.
    """
    config = section.config
    bits, group = config.size("bits"), config.integer("group_size", default=128)
    weight_format = WeightFormat(f"int{bits}", bits, (1, max(group, 0)), 16, bits, column_bits=32)
    skips = ["re:" + key[2:] for key in config.mapping("dynamic") if key.startswith("-:")]
    parts = LINEAR_AND_HEAD if config.flag("lm_head", default=False) else LINEAR_PARTS
    rules = (*section.skipping("modules_to_not_convert", always=skips), StorageRule(weight_format, parts))
    return section.plan(weight_format.name, rules)


def parse_auto_round(section: Section) -> StoragePlan:
    """AutoRound packs like GPTQ, without the group index when it says so."""
    plan = parse(section)
    if "awq" not in section.config.word("packing_format", default=""):
        return plan
    *skips, rule = plan.rules
    return replace(plan, rules=(*skips, replace(rule, format=replace(rule.format, column_bits=0))))
