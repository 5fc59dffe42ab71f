"""Kimi K3: Kimi Linear with full-rank gates, gated latent attention, and experts in a latent space of half the width.

transformers 5.23 lacks it. The structure follows its config and the Kimi K3 report (2026-07): 2.8 T parameters, 104 B
active, 24 gated latent-attention and 69 KDA layers, 896 experts of width 3072 on a 3584-wide latent, 2 shared ones at
full width. The few vectors of its attention residuals, whose layout is not published, are left out (below 0.01 %).
"""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    latent_attention,
    pre_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.families.kimi_linear import delta_attention, kda_layer_types, kda_sizes
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import LatentAttention, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm, vector

MOE = "block_sparse_moe"


def _full_rank_gates(hidden_size: int, heads: int, head_dim: int) -> tuple[Weight, ...]:
    """The forget gate keeps its bottleneck; the output gate is one matrix."""
    width = heads * head_dim
    return (
        *vector(f"{SELF_ATTENTION}.dt_bias", width, tp_ways=heads),
        *vector(f"{SELF_ATTENTION}.A_log", heads, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.f_a_proj", head_dim, hidden_size, tp_ways=1),
        *linear(f"{SELF_ATTENTION}.f_b_proj", width, head_dim, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.g_proj", width, hidden_size, tp_ways=heads),
    )


def _gated_latent_attention(config: Config) -> LatentAttention:
    plain, hidden_size = latent_attention(config), config.size("hidden_size")
    heads, width = config.size("num_attention_heads"), config.size("v_head_dim")
    gate = linear(f"{SELF_ATTENTION}.g_proj", heads * width, hidden_size, tp_ways=heads)
    return replace(plain, weights=(*plain.weights, *gate))


def _latent_mixture(config: Config) -> MoeFfn:
    hidden_size, width = config.size("hidden_size"), config.size("moe_intermediate_size")
    latent = config.size("routed_expert_hidden_size", default=hidden_size)
    num_experts, num_shared = config.size("num_experts"), config.count("num_shared_experts", default=0)
    projections = (
        *linear(f"{MOE}.latent_down_proj", latent, hidden_size, tp_ways=1),
        *linear(f"{MOE}.latent_up_proj", hidden_size, latent, tp_ways=1),
        *(norm(f"{MOE}.latent_norm", latent) if config.flag("latent_moe_use_norm", default=False) else ()),
    )
    return gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_token", "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size, f"{MOE}.gate"),
        expert=gated_mlp(f"{MOE}.experts.0", latent, width, names=("w1", "w3", "w2")),
        shared=gated_mlp(f"{MOE}.shared_experts", hidden_size, width * num_shared) if num_shared else (),
        dense=projections if config.has("routed_expert_hidden_size") else (),
    )


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted."""
    text = text_section(config)
    hidden_size, number = text.size("hidden_size"), text.num_layers("num_hidden_layers")
    heads, head_dim, kernel = kda_sizes(text)
    kinds = kda_layer_types(text, number)
    gates = _full_rank_gates(hidden_size, heads, head_dim)
    mixers: dict[str, Mixer] = {
        "linear_attention": delta_attention(hidden_size, heads, head_dim, kernel, gates),
        "full_attention": _gated_latent_attention(text),
    }
    sparse = sparse_layers(text, number, first_dense=1)
    moe, dense, norms = _latent_mixture(text), dense_ffn(text), pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixers[kinds[index]], moe if sparse[index] else dense, norms)

    return decoder(text, layer, model_type="kimi_k3", prefix="language_model.model")
