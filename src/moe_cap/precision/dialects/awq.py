"""`quant_method: awq`: qweight, qzeros and scales per matrix."""

from __future__ import annotations

from moe_cap.precision.dialects.section import Section
from moe_cap.precision.formats import WeightFormat
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule


def parse(section: Section) -> StoragePlan:
    """`bits` per value, an fp16 scale and a packed zero point per group (4 + 16/128 + 4/128 bits)."""
    config = section.config
    bits, group = config.size("bits", "w_bit"), config.integer("group_size", "q_group_size", default=128)
    zeros = bits if config.flag("zero_point", default=True) else 0
    weight_format = WeightFormat(f"int{bits}", bits, (1, max(group, 0)), 16, zeros)
    rules = (*section.skipping("modules_to_not_convert"), StorageRule(weight_format, LINEAR_PARTS))
    return section.plan(weight_format.name, rules)
