"""llama.cpp with the experts in host memory and everything else on the accelerator (`--cpu-moe`)."""

from __future__ import annotations

from moe_cap.measure.engines.llama_cpp import LlamaCppEngine

ENGINE = LlamaCppEngine("llama-cpp-offload", ("--n-gpu-layers", "all", "--cpu-moe"))
