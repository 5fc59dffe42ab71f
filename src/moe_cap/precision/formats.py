"""How numbers are stored: the exact bytes of a tensor in each format, its scales and zero points included."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moe_cap.errors import UnknownPrecisionError


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """One way to store a tensor.

    Attributes:
        name: how people call it.
        bits: width of a value.
        group: (rows, columns) of an (out, in) matrix that share a scale, 0 for the whole dimension; None: no scales.
        scale_bits: width of a group's scale.
        zero_bits: width of a group's zero point.
        row_bits: further bits per output row.
        column_bits: further bits per input column (the group index that GPTQ keeps of each).
        constant_bits: further bits per tensor (nvfp4's global scale, compressed-tensors' shape).
        nested_group: scales that share a scale of their own, of `nested_bits` (bitsandbytes' double quantisation).
    """

    name: str
    bits: int
    group: tuple[int, int] | None = None
    scale_bits: int = 0
    zero_bits: int = 0
    row_bits: int = 0
    column_bits: int = 0
    constant_bits: int = 0
    nested_group: int = 0
    nested_bits: int = 0

    def bytes_of(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of that shape (the last dimension is the input one), packed without gaps."""
        rows, columns = math.prod(shape[:-1]), shape[-1]
        bits = rows * columns * self.bits + rows * self.row_bits + columns * self.column_bits + self.constant_bits
        if self.group is not None:
            high, wide = self.group
            groups = math.ceil(rows / (high or rows)) * math.ceil(columns / (wide or columns))
            bits += groups * (self.scale_bits + self.zero_bits)
            bits += math.ceil(groups / self.nested_group) * self.nested_bits if self.nested_group else 0
        return -(-bits // 8)


FP32, BF16, FP16 = WeightFormat("fp32", 32), WeightFormat("bf16", 16), WeightFormat("fp16", 16)
FP8_PLAIN, INT8_PLAIN = WeightFormat("fp8", 8), WeightFormat("int8", 8)


def fp8_per_tensor(constants: int = 1) -> WeightFormat:
    """8 bits and an fp32 scale per tensor; a second one where the input's scale is static."""
    return WeightFormat("fp8", 8, constant_bits=32 * constants)


def fp8_per_channel(scale_bits: int = 32) -> WeightFormat:
    """8 bits and a scale per output row."""
    return WeightFormat("fp8", 8, (1, 0), scale_bits)


def fp8_block(rows: int = 128, columns: int = 128, scale_bits: int = 32) -> WeightFormat:
    """8 bits and a scale per block (DeepSeek-V3: 128 x 128, fp32)."""
    return WeightFormat("fp8", 8, (rows, columns), scale_bits)


def int8_per_channel(scale_bits: int = 16) -> WeightFormat:
    """8 bits and a scale per output row."""
    return WeightFormat("int8", 8, (1, 0), scale_bits)


def int4_grouped(group: int = 128, *, scale_bits: int = 16, zero_bits: int = 0) -> WeightFormat:
    """4 bits and a scale per `group` inputs of a row, with a zero point if asymmetric: 4 + 16/128 (+ 4/128) bits."""
    return WeightFormat("int4", 4, (1, group), scale_bits, zero_bits)


def mxfp4() -> WeightFormat:
    """E2M1 with an 8-bit exponent per 32 values: 4.25 bits (OCP Microscaling 1.0, table 1)."""
    return WeightFormat("mxfp4", 4, (1, 32), 8)


def mxfp6() -> WeightFormat:
    """E3M2 or E2M3 with an 8-bit exponent per 32 values: 6.25 bits (OCP Microscaling 1.0, table 1)."""
    return WeightFormat("mxfp6", 6, (1, 32), 8)


def mxfp8() -> WeightFormat:
    """E4M3 with an 8-bit exponent per 32 values: 8.25 bits (OCP Microscaling 1.0, table 1)."""
    return WeightFormat("mxfp8", 8, (1, 32), 8)


def nvfp4(constants: int = 1) -> WeightFormat:
    """E2M1 with an fp8 scale per 16 values and an fp32 scale per tensor; a second one where the input's is static."""
    return WeightFormat("nvfp4", 4, (1, 16), 8, constant_bits=32 * constants)


PLAIN = {
    "fp32": FP32, "float32": FP32, "float": FP32, "fp16": FP16, "float16": FP16, "half": FP16,
    "bf16": BF16, "bfloat16": BF16, "fp8": FP8_PLAIN, "fp8_e4m3": FP8_PLAIN, "fp8_e5m2": FP8_PLAIN,
    "float8_e4m3fn": FP8_PLAIN, "int8": INT8_PLAIN, "int64": WeightFormat("int64", 64),
}  # fmt: skip


def plain_format(name: str) -> WeightFormat:
    """The unscaled format of a dtype's name, as KV caches and unquantised tensors have.

    Raises:
        UnknownPrecisionError: no such dtype.
    """
    try:
        return PLAIN[name.lower().removeprefix("torch.")]
    except KeyError:
        raise UnknownPrecisionError(f"unknown dtype {name!r}: expected one of {', '.join(PLAIN)}") from None
