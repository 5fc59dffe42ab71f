"""Mistral Large 4: sparse attention without a query latent, latents and picks that later layers reuse."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, text_section
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe
from moe_cap.architecture.families.glm import indexer_types
from moe_cap.architecture.mixers import Indexer, LatentAttention
from moe_cap.architecture.model import Architecture
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import Weight, linear, norm, vector


def _scaling(prefix: str, heads: int, tp_ways: int) -> tuple[Weight, ...]:
    """A learned scale of the queries that grows with the logarithm of the position."""
    return (
        *vector(f"{prefix}.softmax_scaling.scale", heads, tp_ways=tp_ways),
        *vector(f"{prefix}.softmax_scaling.bias", heads, tp_ways=tp_ways),
    )


def _indexer(config: Config) -> tuple[Weight, ...]:
    """DeepSeek's, but its queries come from the normed hidden state."""
    hidden_size, prefix = config.size("hidden_size"), f"{SELF_ATTENTION}.indexer"
    heads, width = config.size("index_n_heads"), config.size("index_head_dim")
    return (
        *norm(f"{prefix}.q_input_norm", hidden_size, bias=True),
        *linear(f"{prefix}.wq_b", heads * width, hidden_size, tp_ways=1),
        *linear(f"{prefix}.wk", width, hidden_size, tp_ways=1),
        *norm(f"{prefix}.k_norm", width, bias=True),
        *linear(f"{prefix}.weights_proj", heads, hidden_size, tp_ways=1),
        *_scaling(prefix, heads, 1),
    )


def _attention(config: Config, *, rotary: bool, owns_cache: bool, indexed: bool) -> LatentAttention:
    """A layer without rotary embedding keeps those dimensions as plain ones, so it caches the latent alone."""
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    plain, rope, value = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim"), config.size("v_head_dim")
    nope, rope = (plain, rope) if rotary else (plain + rope, 0)
    rank, bias = config.size("kv_lora_rank"), config.flag("attention_bias", default=False)
    latent = (
        *linear(f"{SELF_ATTENTION}.kv_a_proj_with_mqa", rank + rope, hidden_size, bias=bias, tp_ways=1),
        *norm(f"{SELF_ATTENTION}.kv_a_layernorm", rank),
    )
    weights = (
        *linear(f"{SELF_ATTENTION}.q_proj", heads * (nope + rope), hidden_size, tp_ways=heads),
        *_scaling(SELF_ATTENTION, heads, heads),
        *(latent if owns_cache else ()),
        *linear(f"{SELF_ATTENTION}.kv_b_proj", heads * (nope + value), rank, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.o_proj", hidden_size, heads * value, bias=bias, tp_ways=heads),
        *(_indexer(config) if indexed else ()),
    )
    indexer = Indexer(config.size("index_n_heads"), config.size("index_head_dim")) if indexed else None
    reach = Selected(config.size("index_topk"))
    return LatentAttention(weights, heads, rank, nope, rope, value, reach, indexer, shares_cache=not owns_cache)


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted, and MTP layers are told as unread.

    Its checkpoints hold `mtp_dspark` tensors, which transformers leaves out and the config does not name.
    """
    text = text_section(config)
    number, every = text.num_layers("num_hidden_layers"), text.size("no_rope_layer_interval", default=4)
    rotary = text.items("no_rope_layers", kind=int, length=number)
    rotary = rotary or tuple(int((i + 1) % every != 0) for i in range(number))
    sources = text.items("kv_source_layers", kind=int, length=number) or tuple(range(number))
    indexers = indexer_types(text)
    keys = [(bool(rotary[i]), sources[i] == i, indexers[i] == "full") for i in range(number)]
    mixers = {key: _attention(text, rotary=key[0], owns_cache=key[1], indexed=key[2]) for key in set(keys)}
    moe = deepseek_moe(text, corrected=False)
    decoder = deepseek_decoder(
        text,
        lambda i: mixers[keys[i]],
        moe,
        model_type="mistral_large4",
        first_dense=1,
        prefix="model.language_model",
    )
    return replace(decoder, mtp_unread=1)
