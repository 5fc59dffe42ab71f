"""`quant_method: mxfp4`: the routed experts of gpt-oss."""

from __future__ import annotations

from moe_cap.architecture.weights import Part
from moe_cap.precision.dialects.section import Section
from moe_cap.precision.formats import mxfp4
from moe_cap.precision.plan import StoragePlan, StorageRule


def parse(section: Section) -> StoragePlan:
    """Experts in blocks of 32; weights are unpacked to bf16 before they are multiplied."""
    rules = (*section.skipping("modules_to_not_convert"), StorageRule(mxfp4(), frozenset({Part.EXPERTS})))
    return section.plan("mxfp4", rules)
