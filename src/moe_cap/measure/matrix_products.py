"""Square matrix products by compute dtype, as the engines' libraries make them, or why there is none on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

Multiply = Callable[[], object]
"""One product of operands that are ready on their device."""
FP8_CAPABILITY = (8, 9)
INT8_CAPABILITY = (7, 5)
"""CUDA compute capabilities of the first matrix units for a format: Ada, and Turing."""


@dataclass(frozen=True, slots=True)
class Product:
    """Of one compute dtype.

    Attributes:
        prepare: makes the operands of a side on a device; what it returns multiplies them, again at every call.
        missing: why a device has no such product; None where it has one.
    """

    prepare: Callable[[str, int], Multiply]
    missing: Callable[[str], str | None]


def _operands(device: str, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device) for _ in range(2))
    return left, right


def _plain(dtype: torch.dtype, device: str, side: int) -> Multiply:
    left, right = (operand.to(dtype) for operand in _operands(device, side))
    product = torch.empty(side, side, dtype=dtype, device=device)
    return lambda: torch.mm(left, right, out=product)


def _fp8(device: str, side: int) -> Multiply:
    """One scale per matrix, sums kept in the units' own registers: the fastest that cuBLAS has, and what servers use.

    cuBLAS takes the right operand column by column.
    """
    left, right = (operand.to(torch.float8_e4m3fn) for operand in _operands(device, side))
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(
        left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _int8(device: str, side: int) -> Multiply:
    """Summed in int32, without the scales, which a kernel applies to the sums; the right operand column by column."""
    left, right = ((operand * 32).clamp(-128, 127).to(torch.int8) for operand in _operands(device, side))
    return lambda: torch._int_mm(left, right.t())


def _everywhere(_device: str) -> None:
    return None


def _no_fp16(device: str) -> str | None:
    return None if device.startswith("cuda") else "fp16 is not probed on a processor: engines compute in bf16 there"


def _no_fp8(device: str) -> str | None:
    if not device.startswith("cuda"):
        return "a processor has no fp8 units: its fp8 is converted and multiplied in another format"
    return _too_old(device, "fp8", FP8_CAPABILITY) or _without("_scaled_mm")


def _no_int8(device: str) -> str | None:
    if device.startswith("cuda"):
        return _too_old(device, "int8", INT8_CAPABILITY) or _without("_int_mm")
    if not torch.backends.mkldnn.is_available():
        return "this torch has no oneDNN, whose int8 kernels the engines use on a processor"
    return _without("_int_mm")


def _too_old(device: str, name: str, needed: tuple[int, int]) -> str | None:
    has = torch.cuda.get_device_capability(device)
    version = "{}.{}".format
    return None if has >= needed else f"{name} units came with capability {version(*needed)}, this is {version(*has)}"


def _without(function: str) -> str | None:
    return None if hasattr(torch, function) else f"torch {torch.__version__} has no {function}"


PRODUCTS = {
    "fp32": Product(partial(_plain, torch.float32), _everywhere),
    "fp16": Product(partial(_plain, torch.float16), _no_fp16),
    "bf16": Product(partial(_plain, torch.bfloat16), _everywhere),
    "fp8": Product(_fp8, _no_fp8),
    "int8": Product(_int8, _no_int8),
}
"""By the names that storage plans give their compute dtype."""
NOT_PROBED = {
    "fp4": "fp4 is not probed: its products want packed operands with a scale per block, laid out for each device"
}
"""Further names of theirs, and why no product stands for them here."""
