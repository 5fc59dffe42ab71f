"""transformers with a static cache and a compiled decode step on every device.

What `transformers` does on CUDA anyway, asked for by name: on a processor the compiler (inductor) takes minutes for the
first batch of each shape, which the warm-up pays.
"""

from __future__ import annotations

import torch
from pydantic import JsonValue

from moe_cap.measure.engines.in_process import InProcessEngine, torch_threads


def options() -> dict[str, JsonValue]:
    """Static cache and compilation."""
    return {
        "device": "cuda:0" if torch.cuda.is_available() else "cpu",
        "threads": torch_threads(),
        "cache_implementation": "static",
        "compile": True,
    }


ENGINE = InProcessEngine("transformers-static", options)
