"""Random routed experts as gpt-oss stores them: blocks of 32 fp4 values (E2M1) that share an 8-bit exponent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from moe_cap.errors import SubmissionError

BLOCK = 32
"""Values of one row that share an exponent (OCP Microscaling 1.0, table 1); two of them to a byte."""
EXPERTS = re.compile(r"\.experts\.(gate_up|down)_proj$")
EXPONENT_BIAS = 127
E2M1_RMS = math.sqrt(sum(value**2 for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6)) / 8)
"""Of a code that is drawn evenly, its sign left out; every code is a finite number (same source, table 5)."""


def is_packed(config: Mapping[str, Any]) -> bool:
    """Whether a config.json asks for this layout.

    Raises:
        SubmissionError: it asks for another quantised one, which nobody draws here.
    """
    section = config.get("quantization_config")
    if section is None:
        return False
    if section.get("quant_method") != "mxfp4" or config.get("model_type") != "gpt_oss":
        raise SubmissionError(
            f"random weights are drawn plain or as gpt-oss's mxfp4, not by {section.get('quant_method')!r}: leave the"
            " quantization_config out",
            field="model",
        )
    return True


def packed_tensors(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names and shapes with the experts' [experts, in, out] matrices packed along their inputs.

    `<name>_blocks` [experts, out, in / 32, 16] and `<name>_scales` [experts, out, in / 32], both uint8
    (transformers/integrations/mxfp4.py).

    Raises:
        SubmissionError: the inputs are no whole number of blocks.
    """
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not EXPERTS.search(name):
            packed[name] = tensor
            continue
        experts, inputs, outputs = tensor.shape
        if inputs % BLOCK:
            raise SubmissionError(f"{name} has {inputs} inputs: mxfp4 wants a multiple of {BLOCK}", field="model")
        groups = (experts, outputs, inputs // BLOCK)
        packed[f"{name}_blocks"] = torch.empty((*groups, BLOCK // 2), dtype=torch.uint8, device="meta")
        packed[f"{name}_scales"] = torch.empty(groups, dtype=torch.uint8, device="meta")
    return packed


def draw_packed(name: str, empty: torch.Tensor, width: float, generator: torch.Generator) -> torch.Tensor:
    """Any fp4 codes, under the exponent that gives them about the standard deviation `width`."""
    if name.endswith("_blocks"):
        return empty.random_(0, 256, generator=generator)
    return empty.fill_(EXPONENT_BIAS + round(math.log2(width / E2M1_RMS)))
