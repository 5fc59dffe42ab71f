"""Flint: Qwen3's attention with sinks and windows, one ungated shared expert."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    pre_norms,
    qk_norms,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, vector


def read(config: Config) -> Architecture:
    """Two dense layers first; full attention there, in every fourth layer and in the last."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = [
        "full_attention" if i < 2 or i % 4 == 1 or i == number - 1 else "sliding_attention" for i in range(number)
    ]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    heads, bias = config.size("num_attention_heads"), config.flag("attention_bias", default=False)
    extra = (*qk_norms(config.size("head_dim")), *vector(f"{SELF_ATTENTION}.sinks", heads, tp_ways=heads))
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=extra, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    num_experts = config.size("num_experts", "num_local_experts")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        shared=gated_mlp("mlp.shared_expert", hidden_size, config.size("shared_expert_intermediate_size")),
    )
    dense_layers = config.items("mlp_only_layers", kind=int)
    only_dense = (0, 1) if dense_layers is None else dense_layers
    step, dense, norms = config.size("decoder_sparse_step", default=1), dense_ffn(config), pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        sparse = index not in only_dense and (index + 1) % step == 0
        return Layer(path, mixers[kinds[index]], moe if sparse else dense, norms)

    return decoder(config, layer, model_type="flint")
