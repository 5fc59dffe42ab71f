"""ZAYA1: convolutions over queries and keys, a value half a token late, a router that is an MLP, an expert that skips.

Compressed convolutional attention: arXiv 2510.04476.
"""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gated_moe, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import Weight, linear, norm, vector

PREFIX = f"{SELF_ATTENTION}.qkv_proj"


def _attention(config: Config, kind: str) -> Attention:
    """Two convolutions in a row, the second one mixes the channels of a head."""
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads, head_dim = config.size("num_key_value_heads"), config.size("head_dim", default=128)
    bias, width = config.flag("attention_bias", default=False), kv_heads * head_dim
    first, second = config.size("cca_time0", default=2), config.size("cca_time1", default=2)
    channels = heads * head_dim + width
    weights = (
        *linear(f"{PREFIX}.q_proj", heads * head_dim, hidden_size, bias=bias, tp_ways=kv_heads),
        *linear(f"{PREFIX}.k_proj", width, hidden_size, bias=bias, tp_ways=kv_heads),
        *linear(f"{PREFIX}.v_proj_current", width // 2, hidden_size, bias=bias, tp_ways=kv_heads),
        *linear(f"{PREFIX}.v_proj_delayed", width // 2, hidden_size, bias=bias, tp_ways=kv_heads),
        Weight(f"{PREFIX}.conv_qk_depthwise.weight", (channels, 1, first), kv_heads),
        *vector(f"{PREFIX}.conv_qk_depthwise.bias", channels, tp_ways=kv_heads),
        Weight(f"{PREFIX}.conv_qk_grouped.weight", (channels, head_dim, second), kv_heads),
        *vector(f"{PREFIX}.conv_qk_grouped.bias", channels, tp_ways=kv_heads),
        *vector(f"{SELF_ATTENTION}.qk_norm.temp", kv_heads, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.o_proj", hidden_size, heads * head_dim, bias=bias, tp_ways=kv_heads),
    )
    reach = Window(config.size("sliding_window")) if kind == "hybrid_sliding" else Full()
    window = channels * (first + second - 2) + width // 2
    return Attention(weights, heads, kv_heads, head_dim, head_dim, reach, window_elements=window)


def _mixture(config: Config, *, is_first: bool) -> MoeFfn:
    """Routers after the first add what the router before them saw. One more id than experts: it computes nothing."""
    hidden_size, num_experts = config.size("hidden_size"), config.size("num_experts")
    width = config.size("router_hidden_size", default=256)
    router = (
        *linear("mlp.gate.down_proj", width, hidden_size, bias=True, tp_ways=1),
        *(() if is_first else vector("mlp.gate.router_states_scale", width)),
        *linear("mlp.gate.router_mlp.fc1", width, width, bias=True, tp_ways=1),
        *linear("mlp.gate.router_mlp.fc2", width, width, bias=True, tp_ways=1),
        *linear("mlp.gate.router_mlp.out_proj", num_experts + 1, width, tp_ways=1),
        Weight("mlp.gate.balancing_biases", (num_experts + 1,), 1, is_buffer=True, dtype="fp32"),
    )
    return gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok", default=1),
        router=router,
        zero_experts=1,
    )


def read(config: Config) -> Architecture:
    """ZAYA1-8B. The residual stream is scaled and shifted after attention and mixture, and before the first layer."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = config.layer_types(number, ("hybrid", "hybrid_sliding"), default=["hybrid"] * number)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    first, later = _mixture(config, is_first=True), _mixture(config, is_first=False)
    router_norm = norm("mlp.gate.router_mlp.norm", config.size("router_hidden_size", default=256))
    norms = (*pre_norms(hidden_size), *router_norm)
    scaling = tuple(
        Weight(f"{block}_residual_scale.{name}", (hidden_size,), 1)
        for block in ("post_attention", "post_mlp")
        for name in ("hidden_states_scale", "hidden_states_bias", "residual_scale", "residual_bias")
    )
    arch = decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], later if i else first, norms, scaling),
        model_type="zaya",
        tied=True,
        lm_head_bias=config.flag("lm_head_bias", default=False),
    )
    names = ("model.input_hidden_states_scale", "model.input_hidden_states_bias")
    return replace(arch, other=tuple(Weight(name, (hidden_size,), 1) for name in names))
