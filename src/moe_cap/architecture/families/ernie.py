"""ERNIE 4.5 MoE, and the language model of its VL form."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    pre_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear


def read(config: Config) -> Architecture:
    """Mixtures from `moe_layer_start_index` on; the correction bias is a parameter here."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    expert_size, bias = config.size("moe_intermediate_size"), config.flag("use_bias", default=False)
    num_experts, num_shared = config.size("moe_num_experts"), config.count("moe_num_shared_experts", default=0)
    top_k = top_k_of(config, num_experts, "moe_k", default=6)
    first, every = config.count("moe_layer_start_index", default=1), config.size("moe_layer_interval", default=1)
    end = config.integer("moe_layer_end_index", default=number - 1)
    last = end if end >= 0 else number - 1
    correction = Weight("mlp.moe_statics.e_score_correction_bias", (1, num_experts), 1, dtype="fp32", elementwise=True)
    moe = gated_moe(
        hidden_size,
        expert_size,
        num_experts,
        top_k,
        router=(*linear("mlp.gate", num_experts, hidden_size, tp_ways=1), correction),
        shared=gated_mlp("mlp.shared_experts", hidden_size, expert_size * num_shared, bias=bias) if num_shared else (),
    )
    sparse = [(i + 1) % every == 0 and first <= i <= last for i in range(number)]
    dense, mixer = dense_ffn(config, bias=bias), gqa_from(config, qkv_bias=bias, o_bias=bias)
    norms = pre_norms(hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixer, moe if sparse[i] else dense, norms),
        model_type="ernie4_5_moe",
        tied=True,
        lm_head_bias=bias,
    )


def _read_vl(config: Config, *, model_type: str, prefix: str, tied: bool) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    widths = config.items("moe_intermediate_size", kind=int, length=1)
    expert_size, bias = (widths or (1536,))[0], config.flag("use_bias", default=False)
    num_experts, num_shared = config.size("moe_num_experts"), config.count("moe_num_shared_experts", default=2)
    gate = "mlp.text_moe.gate"
    name = f"{gate}.moe_statics.e_score_correction_bias"
    moe = gated_moe(
        hidden_size,
        expert_size,
        num_experts,
        top_k_of(config, num_experts, "moe_k", default=6),
        prefix="mlp.text_moe",
        router=(
            *linear(gate, num_experts, hidden_size, tp_ways=1),
            Weight(name, (1, num_experts), 1, dtype="fp32", elementwise=True),
        ),
        shared=gated_mlp("mlp.shared_experts", hidden_size, expert_size * num_shared, bias=bias) if num_shared else (),
    )
    sparse, dense = sparse_layers(config, number, first_dense=1), dense_ffn(config, bias=bias)
    mixer, norms = gqa_from(config, qkv_bias=bias, o_bias=bias), pre_norms(hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixer, moe if sparse[i] else dense, norms),
        model_type=model_type,
        prefix=prefix,
        tied=tied,
    )


def read_vl(config: Config) -> Architecture:
    """ERNIE 4.5 VL: what a text token can reach; vision tower and vision experts, which it cannot, are not counted."""
    tied = config.flag("tie_word_embeddings", default=True)
    return _read_vl(text_section(config), model_type="ernie4_5_vl_moe", prefix="model.language_model", tied=tied)
