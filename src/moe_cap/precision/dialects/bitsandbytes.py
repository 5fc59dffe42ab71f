"""`quant_method: bitsandbytes`: LLM.int8 and NF4/FP4."""

from __future__ import annotations

from moe_cap.precision.dialects.section import Section
from moe_cap.precision.formats import WeightFormat, plain_format
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule

NF4_BLOCK, NESTED_BLOCK = 64, 256
CODEBOOK_BITS, NESTED_CODEBOOK_BITS = 16 * 32, 256 * 32


def _four_bit(kind: str, *, nested: bool) -> WeightFormat:
    """An fp32 absmax per 64 values, or an 8-bit one with an fp32 of its own per 256 of them; codebooks per tensor."""
    if not nested:
        return WeightFormat(kind, 4, (1, NF4_BLOCK), 32, constant_bits=CODEBOOK_BITS)
    constants = CODEBOOK_BITS + NESTED_CODEBOOK_BITS
    return WeightFormat(kind, 4, (1, NF4_BLOCK), 8, constant_bits=constants, nested_group=NESTED_BLOCK, nested_bits=32)


def parse(section: Section) -> StoragePlan:
    """Every Linear but the output head, save what `llm_int8_skip_modules` lists.

    int8 has an fp32 scale per row and multiplies in int8; 4 bits are unpacked to `bnb_4bit_compute_dtype`.
    """
    config = section.config
    skipped = section.skipping("llm_int8_skip_modules")
    if config.flag("load_in_8bit", "_load_in_8bit", default=False):
        weight_format = WeightFormat("int8", 8, (1, 0), 32, constant_bits=8)
        return section.plan("int8", (*skipped, StorageRule(weight_format, LINEAR_PARTS)), compute_dtype="int8")
    weight_format = _four_bit(
        config.word("bnb_4bit_quant_type", default="fp4"),
        nested=config.flag("bnb_4bit_use_double_quant", default=False),
    )
    compute = plain_format(config.word("bnb_4bit_compute_dtype", default="float32")).name
    return section.plan(weight_format.name, (*skipped, StorageRule(weight_format, LINEAR_PARTS)), compute_dtype=compute)
