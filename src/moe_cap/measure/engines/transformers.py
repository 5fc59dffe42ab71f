"""Hugging Face transformers, in process, by `model.generate`.

Batches run in lock step. On CUDA the cache is static and the decode step is compiled (CUDA graphs): without them a
step is bound by kernel launches. The experts' implementation is pinned there, because `generate` would otherwise
switch to one that copies the weights of every token's experts, which reads more than the union that the metrics
count.
"""

from __future__ import annotations

import torch
from pydantic import JsonValue

from moe_cap.measure.engines.in_process import InProcessEngine, torch_threads


def options() -> dict[str, JsonValue]:
    """Static cache and compilation on CUDA, dynamic cache elsewhere."""
    cuda = torch.cuda.is_available()
    return {
        "device": "cuda:0" if cuda else "cpu",
        "threads": torch_threads(),
        "cache_implementation": "static" if cuda else None,
        "compile": cuda,
    }


ENGINE = InProcessEngine("transformers", options)
