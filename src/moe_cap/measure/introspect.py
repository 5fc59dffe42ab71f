"""Count a model that no reader knows from the model itself, built from its config on the meta device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from moe_cap.architecture import Parameters, Part
from moe_cap.errors import ConfigError, UnknownModelTypeError

# the part that a parameter belongs to, by the names that transformers gives its modules; the first match decides
RULES = (
    (re.compile(r"(^|\.)(embed_tokens|embeddings|wte|shared)\.weight"), Part.EMBEDDING),
    (re.compile(r"^lm_head"), Part.LM_HEAD),
    (re.compile(r"\.shared_(experts?(_gate)?|mlp)\."), Part.SHARED_EXPERTS),
    (re.compile(r"\.(self_attn|self_attention|attention|attn|linear_attn|mamba|conv)\."), Part.ATTENTION),
    (re.compile(r"norm\w*(\.\d)?\.(weight|bias)$"), Part.NORM),
    (re.compile(r"\.experts\."), Part.EXPERTS),
    (re.compile(r"\.(gate|router)\."), Part.ROUTER),
    (re.compile(r"\.(mlps?|feed_forward|ffn)\."), Part.DENSE_FFN),
)
TOP_K_KEYS = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")


def _part_of(name: str) -> Part:
    return next((part for pattern, part in RULES if pattern.search(name)), Part.OTHER)


def _build(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The config object and the model of a config, without memory for its weights and without remote code."""
    keys = {key: value for key, value in config.items() if key not in {"quantization_config", "auto_map"}}
    model_type = keys.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError("config lacks model_type: expected a string", key="model_type")
    try:
        loaded = AutoConfig.for_model(**deepcopy(keys))
    except StrictDataclassError as error:
        raise ConfigError(f"transformers refuses this config of a {model_type}: {error}") from error
    except (ValueError, KeyError) as error:
        message = f"neither a reader nor this version of transformers knows model_type {model_type!r}"
        raise UnknownModelTypeError(message, key="model_type") from error
    try:
        with torch.device("meta"), no_init_weights():
            model = AutoModelForCausalLM.from_config(loaded)
    except (ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"transformers cannot build a {model_type} from this config: {error}") from error
    model.tie_weights()
    return loaded, model


def _activation(loaded: Any, model: Any) -> float:
    """Share of the routed experts that a token uses, 1.0 where the config does not say."""
    text = loaded.get_text_config()
    top_k = next((getattr(text, key) for key in TOP_K_KEYS if getattr(text, key, None)), None)
    stacked = [
        parameter for name, parameter in model.named_parameters() if ".experts." in name and parameter.dim() == 3
    ]
    return top_k / stacked[0].shape[0] if top_k and stacked else 1.0


def count_parameters(config: Mapping[str, Any]) -> Parameters:
    """Parameters by part of whatever transformers can build from a config.

    Parts come from module names, so an unusual one may fall into `other`; `total` is exact in any case. KV bytes and
    FLOPs need a reader.

    Raises:
        UnknownModelTypeError: transformers does not know the `model_type` either.
        ConfigError: it cannot build a model from this config.
    """
    loaded, model = _build(config)
    counts = dict.fromkeys(Part, 0)
    for name, parameter in model.named_parameters():
        counts[_part_of(name)] += parameter.numel()
    total = sum(counts.values())
    unused = round(counts[Part.EXPERTS] * (1 - _activation(loaded, model)))
    return Parameters(total=total, active=total - unused, **{part.value: number for part, number in counts.items()})
