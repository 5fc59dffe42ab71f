"""Beam: gated attention, windows in five layers of six, four norms a layer, no shared experts."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    pre_norms,
    qk_norms,
    sparse_layers,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import linear, norm, vector


def read(config: Config) -> Architecture:
    """The gate has one bias a head; three dense layers first; the last layer always sees everything."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = ["full_attention" if i % 6 == 5 or i == number - 1 else "sliding_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    heads, head_dim = config.size("num_attention_heads"), config.size("head_dim")
    bias = config.flag("attention_bias", default=False)
    extra = (
        *qk_norms(head_dim),
        *linear(f"{SELF_ATTENTION}.gate_proj", heads * head_dim, hidden_size, tp_ways=heads),
        *vector(f"{SELF_ATTENTION}.gate_bias", heads, tp_ways=heads),
    )
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=extra, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    num_experts = config.size("num_experts")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size),
    )
    sparse, dense = sparse_layers(config, number, first_dense=3), dense_ffn(config)
    norms = (
        *pre_norms(hidden_size),
        *norm("pre_feedforward_layernorm", hidden_size),
        *norm("post_feedforward_layernorm", hidden_size),
    )
    return decoder(
        config, lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms), model_type="beam"
    )
