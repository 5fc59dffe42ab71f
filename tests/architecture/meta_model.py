"""The oracle for parameters: the model itself, built from its config on the meta device and counted by module name."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from copy import deepcopy
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KNOWN = frozenset(CONFIG_MAPPING_NAMES)
# what is not the language model of a multimodal one
OUTSIDE = re.compile(
    r"visual|vision|audio|multi_modal_projector|mm_projector|patch_merge|embed_vision|embed_audio|view_sep\w*|image_newline|resampler_model"
)
# model types with an output head that no auto class for text lists
NAMED = {
    "diffusion_gemma": "DiffusionGemmaForBlockDiffusion",
    "mistral4": "Mistral4ForCausalLM",
    "nllb-moe": "NllbMoeForConditionalGeneration",
    "openai_privacy_filter": "OpenAIPrivacyFilterForTokenClassification",
    "qwen3_omni_moe_thinker": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "switch_transformers": "SwitchTransformersForConditionalGeneration",
}
RULES = (
    (r"\.embed_norm\.", "norm"),
    (r"layernorm\.mlp\.", "other"),
    (r"\.(down|up)_embed\.", "experts"),
    (r"\.router_gate\.", "router"),
    (r"(^|\.)(embed_tokens|shared)\.|\.embeddings\.|\bwte\.", "embedding"),
    (r"^(lm_head|score)", "lm_head"),
    (r"\.shared_experts?(_gate)?\.|\.shared_mlp\.", "shared_experts"),
    (
        r"\.(self_attn|self_attention|attention|attn|linear_attn|mamba|conv|SelfAttention|EncDecAttention|cross_attention)\.",
        "attention",
    ),
    (r"\.mixer\.(\w_proj|in_proj|out_proj|conv1d|A_log|D|dt_bias|norm)\b", "attention"),
    (r"norm\w*(\.\d)?\.(weight|bias)$", "norm"),
    (r"\.experts\.|\.(mlp|block_sparse_moe)\.(input|output)_linear\.", "experts"),
    (r"\.(gate|router)\.|\.expert_bias$", "router"),
    (r"\.(mlps?|feed_forward|mixer|ffn)\.", "dense_ffn"),
)
LAYER = re.compile(r"(?:^|\.)((?:encoder\.)?(?:layers|blocks?)\.\d+)\.")


def build(config: dict[str, Any]) -> torch.nn.Module:
    """The model of a config, without memory for its weights."""
    # a copy: some config classes take keys out of the nested objects that they are given
    loaded = AutoConfig.for_model(
        **deepcopy({key: value for key, value in config.items() if key != "quantization_config"})
    )
    with torch.device("meta"), no_init_weights():
        model = from_config(loaded)
    model.tie_weights()
    return model


def from_config(config: PreTrainedConfig, **settings: Any) -> PreTrainedModel:
    """The model with its output head, by the auto class that knows it or by name."""
    if config.model_type in NAMED:
        name = NAMED[config.model_type]
        module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
        return cast("PreTrainedModel", getattr(module, name)._from_config(config, **settings))
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return cast(
        "PreTrainedModel",
        (AutoModelForCausalLM if causal else AutoModelForImageTextToText).from_config(config, **settings),
    )


def part_of(name: str) -> str:
    """The part that a parameter belongs to, by the module it lives in."""
    return next((part for pattern, part in RULES if re.search(pattern, name)), "other")


def count(model: torch.nn.Module) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Parameters by part, and by part for each layer ("layers.3", "encoder.layers.3")."""
    parts: Counter[str] = Counter()
    layers: dict[str, Counter[str]] = {}
    for name, parameter in model.named_parameters():
        if OUTSIDE.search(name):
            continue
        part = part_of(name)
        parts[part] += parameter.numel()
        if found := LAYER.search(name):
            layers.setdefault(found[1], Counter())[part] += parameter.numel()
    return parts, layers
