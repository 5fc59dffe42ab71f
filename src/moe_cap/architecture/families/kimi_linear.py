"""Kimi Linear: Kimi delta attention (KDA) in three layers of four, latent attention in the fourth."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, latent_attention
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture
from moe_cap.architecture.recurrent import Recurrent
from moe_cap.architecture.weights import Weight, linear, norm, vector


def delta_attention(
    hidden_size: int, heads: int, head_dim: int, kernel: int, gates: tuple[Weight, ...], prefix: str = SELF_ATTENTION
) -> Recurrent:
    """A gated delta rule whose decay is per channel: a lookup, an update and a read of head_dim x head_dim values."""
    width, state = heads * head_dim, heads * head_dim * head_dim
    weights = (
        *(w for name in ("q_proj", "k_proj", "v_proj") for w in linear(f"{prefix}.{name}", width, hidden_size)),
        Weight(f"{prefix}.conv1d.weight", (3 * width, 1, kernel), heads),
        *gates,
        *linear(f"{prefix}.b_proj", heads, hidden_size, tp_ways=heads),
        *norm(f"{prefix}.o_norm", head_dim),
        *linear(f"{prefix}.o_proj", hidden_size, width, tp_ways=heads),
    )
    return Recurrent(weights, heads, state, 3 * width * kernel, 6 * state)


def delta_gates(hidden_size: int, heads: int, head_dim: int) -> tuple[Weight, ...]:
    """Forget gate and output gate, each through a bottleneck of one head's width."""
    width, prefix = heads * head_dim, f"{SELF_ATTENTION}.forget_gate"
    return (
        *vector(f"{prefix}.dt_bias", width, tp_ways=heads),
        *vector(f"{prefix}.A_log", heads, tp_ways=heads),
        *linear(f"{prefix}.f_a_proj", head_dim, hidden_size, tp_ways=1),
        *linear(f"{prefix}.f_b_proj", width, head_dim, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.g_a_proj", head_dim, hidden_size, tp_ways=1),
        *linear(f"{SELF_ATTENTION}.g_b_proj", width, head_dim, tp_ways=heads),
    )


def kda_layer_types(config: Config, number: int) -> tuple[str, ...]:
    """`linear_attn_config` lists the full-attention layers, counted from 1; every fourth without it."""
    linear_config = config.section("linear_attn_config") if config.has("linear_attn_config") else None
    full = linear_config.items("full_attn_layers", kind=int) if linear_config else None
    if full is not None:
        return tuple("full_attention" if i + 1 in full else "linear_attention" for i in range(number))
    default = ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(number)]
    return config.layer_types(number, ("full_attention", "linear_attention"), default=default)


def kda_sizes(config: Config, *, default_heads: int = 32) -> tuple[int, int, int]:
    """Heads, width of a head, width of the convolution."""
    if config.has("linear_attn_config"):
        section = config.section("linear_attn_config")
        return section.size("num_heads"), section.size("head_dim"), section.size("short_conv_kernel_size", default=4)
    heads, head_dim = (
        config.size("linear_num_heads", default=default_heads),
        config.size("linear_head_dim", default=128),
    )
    return heads, head_dim, config.size("linear_conv_kernel_dim", default=4)


def read(config: Config) -> Architecture:
    """Kimi-Linear-48B-A3B; its latent attention has no rotary embedding, but caches that part of the key."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    heads, head_dim, kernel = kda_sizes(config)
    kinds = kda_layer_types(config, number)
    mixers: dict[str, Mixer] = {
        "linear_attention": delta_attention(
            hidden_size, heads, head_dim, kernel, delta_gates(hidden_size, heads, head_dim)
        ),
        "full_attention": latent_attention(config, bias=config.flag("attention_bias", default=False)),
    }
    moe = deepseek_moe(config)
    return deepseek_decoder(config, lambda i: mixers[kinds[i]], moe, model_type="kimi_linear", first_dense=1)
