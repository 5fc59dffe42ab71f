"""Doge: a dynamic mask on attention, and a mixture of thousands of experts of one neuron each."""

from __future__ import annotations

from math import isqrt

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, dense_ffn, gqa_from, pre_norms, qk_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn, MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import Weight, gated_mlp, linear, vector


def _mixture(config: Config) -> MoeFfn:
    """An expert is a row of each table; two square roots of keys pick among all; the wide MLP runs beside them."""
    hidden_size, num_experts = config.size("hidden_size"), config.size("num_experts", default=16384)
    bias, width = config.flag("mlp_bias", default=False), config.size("intermediate_size")
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(config, num_experts, "num_experts_per_tok", default=64),
        expert=(
            Weight("mlp.down_embed.weight", (1, hidden_size)),
            Weight("mlp.up_embed.weight", (1, hidden_size)),
        ),
        router=linear("mlp.router_gate", 2 * isqrt(num_experts), hidden_size, tp_ways=1),
        dense=gated_mlp("mlp", hidden_size, width, bias=bias),
    )


def read(config: Config) -> Architecture:
    """With `is_moe`, Doge-MoE. A token attends to the `keep_window_size` positions that the mask ranks highest."""
    hidden_size = config.size("hidden_size")
    bias, plain = config.flag("attention_bias", default=False), gqa_from(config)
    kv_heads, head_dim = plain.num_kv_heads, plain.qk_head_dim
    extra = (
        *qk_norms(head_dim),
        *vector(f"{SELF_ATTENTION}.A", kv_heads, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.dt_proj", kv_heads, kv_heads * head_dim, bias=bias, tp_ways=1),
    )
    reach = Selected(config.size("keep_window_size", default=2048))
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=extra, reach=reach)
    ffn: MoeFfn | DenseFfn = dense_ffn(config, bias=config.flag("mlp_bias", default=False))
    if config.flag("is_moe", default=False):
        ffn = _mixture(config)
    norms = pre_norms(hidden_size)
    gates = (*vector("input_residual", hidden_size), *vector("post_attention_residual", hidden_size))
    return decoder(config, lambda _, path: Layer(path, mixer, ffn, norms, gates), model_type="doge")
