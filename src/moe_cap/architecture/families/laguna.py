"""Laguna: a softplus gate on attention's output, heads that differ by layer, one shared expert."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    grouped_query_attention,
    pre_norms,
    qk_norms,
    sparse_layers,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, linear


def _attention(config: Config, heads: int, kind: str) -> Attention:
    """One gate a head, or with `gating: per-element` (and false) one a channel."""
    hidden_size, head_dim = config.size("hidden_size"), config.size("head_dim", default=128)
    bias = config.flag("attention_bias", default=False)
    is_word = config.is_text("gating")
    per_head = config.word("gating") == "per-head" if is_word else config.flag("gating", default=True)
    gate = linear(f"{SELF_ATTENTION}.g_proj", heads if per_head else heads * head_dim, hidden_size, tp_ways=heads)
    return grouped_query_attention(
        hidden_size, heads, config.size("num_key_value_heads"), head_dim,
        qkv_bias=bias, o_bias=bias, extra=(*qk_norms(head_dim), *gate), reach=window_of(config, kind),
    )  # fmt: skip


def read(config: Config) -> Architecture:
    """Laguna XS and S. The correction bias is a parameter here; the first layer is dense."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=["full_attention"] * number)
    heads = config.items("num_attention_heads_per_layer", kind=int, length=number)
    heads = heads or (config.size("num_attention_heads"),) * number
    mixers = {(count, kind): _attention(config, count, kind) for count, kind in set(zip(heads, kinds, strict=True))}
    num_experts = config.size("num_experts")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=(
            *linear("mlp.gate", num_experts, hidden_size, tp_ways=1),
            correction_bias("mlp.gate.", num_experts, is_buffer=False),
        ),
        shared=gated_mlp("mlp.shared_experts", hidden_size, config.size("shared_expert_intermediate_size")),
    )
    sparse, dense = sparse_layers(config, number, first_dense=1), dense_ffn(config)
    norms = pre_norms(hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[heads[i], kinds[i]], moe if sparse[i] else dense, norms),
        model_type="laguna",
    )
