"""What vLLM's server says about itself, from its log: effective settings, kernels, how it took the weights. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from moe_cap.measure.engines.dtypes import DTYPES

PRECISIONS = {f"torch.{name}": precision for precision, name in DTYPES.items()}
CONFIG = re.compile(r"Initializing a V1 LLM engine \(v(?P<version>[^)]+)\) with config: (?P<config>.*)")
SETTINGS = (
    "dtype", "max_seq_len", "load_format", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
    "disable_custom_all_reduce", "quantization", "enforce_eager", "kv_cache_dtype", "device_config", "seed",
    "enable_prefix_caching", "enable_chunked_prefill", "speculative_config",
)  # fmt: skip
"""What of the engine's configuration decides a result and has a plain value."""
ARGUMENTS = re.compile(r"non-default args: (?P<arguments>\{.*\})")
KV_TOKENS = re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens")
BATCHED_TOKENS = re.compile(r"Chunked prefill is enabled with max_num_batched_tokens=(?P<tokens>\d+)")
COMPILED_SIZES = re.compile(r"compile_ranges_endpoints': \[(?P<sizes>\d[\d, ]*)\]")
"""Their largest is `max_num_batched_tokens` (vllm/config/vllm.py, `_set_compile_ranges`), compiled or not."""
MOE_BACKEND = re.compile(r"Using '?(?P<backend>[\w-]+(?: [\w-]+)?)'? (?P<weights>\w+) MoE backend")
"""Backends without quantisation have names of two words (vllm/.../fused_moe/oracle/unquantized.py)."""
MODEL_RUNNER = re.compile(r"(?:Using|using the) (?P<runner>V\d) (?:Model Runner|model runner instead)")
"""Told of V2, and where V1 takes a model of its: returning routed experts is one reason (vllm/config/vllm.py)."""
LINEAR_KERNEL = re.compile(r"(?:Using|Selected) (?P<kernel>\w*Kernel\w*) for ")
CORES = re.compile(r"local_rank=\d+, core ids=\[(?P<cores>[\d, ]+)\]")
WEIGHT_ONLY = re.compile(r"Weight-only FP\d\s+compression|Using '?\w*MARLIN'? |Using '?\w+_BF16'? |Using '?CPU'? Fp8 ")
"""Kernels that unpack what they read to the dtype of the activations and multiply in that."""
UNPACKED = re.compile(r"emulation", re.IGNORECASE)
"""Kernels for devices without the number format: what they unpack goes through the memory once more."""


def parse_log(text: str) -> dict[str, JsonValue]:
    """Effective settings by the server's own words; only what it said is there.

    Sources: the line of `EngineCore` with the whole configuration, that of the API server with what was given, those of
    the scheduler, of the size of the cache, of the cores, and of the kernels that were chosen (vLLM 0.26 to 0.33).
    """
    found: dict[str, JsonValue] = {}
    if config := CONFIG.search(text):
        for name in SETTINGS:
            if value := re.search(rf"(?:^|, ){name}=([^,()\[\]{{}}]+)(?:,|$)", config["config"]):
                found[name] = _plain(value[1])
    if arguments := ARGUMENTS.search(text):
        found["non_default_args"] = arguments["arguments"]
    if tokens := KV_TOKENS.search(text):
        found["kv_cache_tokens"] = int(tokens["tokens"].replace(",", ""))
    if batched := BATCHED_TOKENS.search(text):
        found["max_num_batched_tokens"] = int(batched["tokens"])
    elif sizes := COMPILED_SIZES.search(text):
        found["max_num_batched_tokens"] = max(int(size) for size in sizes["sizes"].split(","))
    if cores := CORES.findall(text):
        found["worker_cores"] = "|".join(dict.fromkeys(cores))
    return found | _kernels(text)


def _kernels(text: str) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    if backend := MOE_BACKEND.search(text):
        found["moe_backend"] = f"{backend['backend']} {backend['weights']}"
    if runner := MODEL_RUNNER.search(text):
        found["model_runner"] = runner["runner"]
    if kernels := sorted({kernel["kernel"] for kernel in LINEAR_KERNEL.finditer(text)}):
        found["linear_kernels"] = ", ".join(kernels)
    if WEIGHT_ONLY.search(text):
        found["weight_only_kernels"] = True
    return found


def _plain(text: str) -> JsonValue:
    """A Python literal of the log as JSON has it; any other word stays one."""
    known: dict[str, JsonValue] = {"True": True, "False": False, "None": None}
    return int(text) if text.isdecimal() else known.get(text, text)


def quantisation_of(told: Mapping[str, JsonValue]) -> str | None:
    """Method and kernels that read the weights packed, for people; None where that is not what was told."""
    method, experts, others = (told.get(key) for key in ("quantization", "moe_backend", "linear_kernels"))
    if method is None or experts is None or UNPACKED.search(f"{experts} {others}"):
        return None
    return f"vLLM {method}; experts by {experts}" + (f"; others by {others}" if others else "")


def batched_tokens(told: Mapping[str, JsonValue]) -> float | None:
    """Tokens that one pass takes at most: infinitely many where prompts are never cut; None where it was not told."""
    number = told.get("max_num_batched_tokens")
    if number is None:
        return float("inf") if told.get("enable_chunked_prefill") is False else None
    return float(str(number))
