"""Ling 2.5 and Ring 2.5 (Bailing hybrid): Kimi delta attention with gated latent attention in every sixth layer."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, latent_attention
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe, mtp_layers
from moe_cap.architecture.families.kimi_linear import delta_attention
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture
from moe_cap.architecture.weights import linear, vector


def read(config: Config) -> Architecture:
    """Forget gate and output gate are full matrices here; latent attention has one gate per head.

    MTP layers have latent attention (vllm/model_executor/models/bailing_moe_v3_mtp.py).
    """
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    heads, head_dim = config.size("num_attention_heads"), config.size("head_dim", default=128)
    width, prefix = heads * head_dim, f"{SELF_ATTENTION}.forget_gate"
    gates = (
        *vector(f"{prefix}.A_log", heads, tp_ways=heads),
        *vector(f"{prefix}.dt_bias", width, tp_ways=heads),
        *linear(f"{prefix}.f_proj", width, hidden_size, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.g_proj", width, hidden_size, tp_ways=heads),
    )
    latent = latent_attention(config, bias=config.flag("attention_bias", default=False))
    gate = linear(f"{SELF_ATTENTION}.g_proj", heads, hidden_size, tp_ways=heads)
    kernel = config.size("short_conv_kernel_size", default=4)
    mixers: dict[str, Mixer] = {
        "linear_attention": delta_attention(hidden_size, heads, head_dim, kernel, gates),
        "full_attention": replace(latent, weights=(*latent.weights, *gate)),
    }
    every = config.size("layer_group_size", default=6)
    default = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "linear_attention"), default=default)
    moe = deepseek_moe(config)
    arch = deepseek_decoder(config, lambda i: mixers[kinds[i]], moe, model_type="bailing_hybrid")
    return replace(arch, mtp=mtp_layers(config, mixers["full_attention"], moe, default=1))
