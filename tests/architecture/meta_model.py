"""The oracle for parameters: the model itself, built from its config on the meta device and counted by module name."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

RULES = (
    (r"\.shared_experts?(_gate)?\.|\.shared_mlp\.|\.shared_expert_gate", "shared_experts"),
    (r"\.(self_attn|attention|attn|mixer_attn|linear_attn|mamba|conv)\.", "attention"),
    (r"\.experts\.", "experts"),
    (r"\.(gate|router)\.(weight|bias|e_score_correction_bias|layer\.weight|classifier\.weight)$", "router"),
    (r"\.(mlp|feed_forward)\.", "dense_ffn"),
    (r"norm", "norm"),
)
AUTO = frozenset({"qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3", "gpt_oss"})
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def build(config: dict[str, Any]) -> torch.nn.Module:
    """The causal language model of a config, without memory for its weights."""
    loaded = AutoConfig.for_model(**{key: value for key, value in config.items() if key != "quantization_config"})
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(loaded)
    model.tie_weights()
    return model


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by the module it lives in."""
    if "embed_tokens" in name or "wte" in name:
        return "embedding"
    if name.startswith("lm_head"):
        return "lm_head"
    return next((part for pattern, part in RULES if re.search(pattern, name)), "other")


def count(model: torch.nn.Module) -> tuple[Counter[str], dict[int, Counter[str]]]:
    """Parameters by part, and by part for each decoder layer."""
    parts: Counter[str] = Counter()
    layers: dict[int, Counter[str]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        parts[part] += parameter.numel()
        if (found := LAYER.search(name)) and "vis" not in name:
            layers.setdefault(int(found[1]), Counter())[part] += parameter.numel()
    return parts, layers
