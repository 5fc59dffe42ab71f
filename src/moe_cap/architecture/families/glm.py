"""GLM-4.5 to GLM-5.2, and Solar Open and dots.llm1, which share their mixture."""

from __future__ import annotations

from moe_cap.architecture.blocks import gqa_from, head_dim_of, latent_attention, qk_norms, text_section, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import (
    deepseek_decoder,
    deepseek_moe,
    sparse_latent_attention,
    without_indexer,
)
from moe_cap.architecture.families.dense import qwen_layer_types
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture


def _attention(config: Config) -> Attention:
    """GQA with biases on q, k and v only, and norms on query and key in the larger models."""
    head_dim = head_dim_of(config, config.size("hidden_size"), config.size("num_attention_heads"))
    extra = qk_norms(head_dim) if config.flag("use_qk_norm", default=False) else ()
    return gqa_from(config, qkv_bias=config.flag("attention_bias", default=False), extra=extra)


def read_glm4_moe(config: Config) -> Architecture:
    """GLM-4.5, 4.6, 4.7."""
    mixer = _attention(config)
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config), model_type="glm4_moe", first_dense=1)


def read_glm4v_moe(config: Config) -> Architecture:
    """GLM-4.5V, 4.6V: the language model; the vision tower is not counted."""
    text = text_section(config)
    mixer, prefix = _attention(text), "model.language_model"
    moe = deepseek_moe(text)
    return deepseek_decoder(text, lambda _: mixer, moe, model_type="glm4v_moe", first_dense=1, prefix=prefix)


def read_glm4_moe_lite(config: Config) -> Architecture:
    """GLM-4.7-Flash: latent attention."""
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config), model_type="glm4_moe_lite", first_dense=1)


def indexer_types(config: Config) -> tuple[str, ...]:
    """Which layers run an indexer of their own; the others reuse the picks of the last one that did."""
    number = config.num_layers("num_hidden_layers")
    listed = config.items("indexer_types", kind=str, length=number)
    if listed is not None:
        return listed
    if config.has("index_topk_pattern"):
        return tuple("full" if mark == "F" else "shared" for mark in config.word("index_topk_pattern"))
    every = max(config.count("index_topk_freq", default=1), 1)
    offset = config.count("index_skip_topk_offset", default=2)
    return tuple("shared" if max(i - offset + 1, 0) % every else "full" for i in range(number))


def read_glm_moe_dsa(config: Config) -> Architecture:
    """GLM-5, 5.1, 5.2: DeepSeek's sparse attention, its indexer shared between layers in 5.2."""
    full = sparse_latent_attention(config)
    shared, kinds = without_indexer(full), indexer_types(config)
    return deepseek_decoder(
        config,
        lambda i: full if kinds[i] == "full" else shared,
        deepseek_moe(config),
        model_type="glm_moe_dsa",
        first_dense=3,
    )


def read_solar_open(config: Config) -> Architecture:
    """Solar Open: GLM-4.5's mixture in every layer."""
    bias = config.flag("attention_bias", default=False)
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias)
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config), model_type="solar_open")


def read_dots1(config: Config) -> Architecture:
    """dots.llm1: norms on query and key, Qwen's windows."""
    kinds, bias = qwen_layer_types(config), config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, config.size("hidden_size"), config.size("num_attention_heads"))
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norms(head_dim), reach=window_of(config, kind))
        for kind in set(kinds)
    }
    return deepseek_decoder(config, lambda i: mixers[kinds[i]], deepseek_moe(config), model_type="dots1")
