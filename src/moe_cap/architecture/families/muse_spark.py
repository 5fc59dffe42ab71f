"""Muse Spark: gated attention, experts that work at half the model's width, learned gates on the residual stream."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    sparse_layers,
    text_section,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, norm


def _mixture(config: Config) -> MoeFfn:
    """Two projections, to the experts' width and back, which every token goes through."""
    hidden_size, latent = config.size("hidden_size"), config.size("moe_hidden_size", default=4096)
    num_experts = config.size("num_local_experts", "num_experts")
    return gated_moe(
        latent,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size),
        dense=(
            *linear("mlp.pre_expert_proj", latent, hidden_size, tp_ways=1),
            *linear("mlp.post_expert_proj", hidden_size, latent, tp_ways=1),
        ),
    )


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; encoders for images and sound are not counted."""
    tied = config.flag("tie_word_embeddings", default=False)
    config = text_section(config)
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = ["sliding_attention" if (number - 1 - i) % 4 else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    heads, bias = config.size("num_attention_heads"), config.flag("attention_bias", default=False)
    width = heads * config.size("head_dim", default=64)
    gate = linear(f"{SELF_ATTENTION}.gate_proj", width, hidden_size, tp_ways=heads)
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=gate, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    sparse, moe, dense = sparse_layers(config, number), _mixture(config), dense_ffn(config)
    norms = tuple(
        weight
        for name in ("input_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
        for weight in norm(name, hidden_size)
    )
    latent = config.size("moe_hidden_size", default=4096)
    inner = (*norm("mlp.pre_expert_norm", latent), *norm("mlp.experts.post_expert_norm", latent))
    gates = tuple(
        Weight(f"{name}_residual_gate.gate", (hidden_size,), 1, dtype="fp32")
        for name in ("post_attention", "post_feedforward")
    )

    def layer(index: int, path: str) -> Layer:
        if sparse[index]:
            return Layer(path, mixers[kinds[index]], moe, (*norms, *inner), gates)
        return Layer(path, mixers[kinds[index]], dense, norms, gates)

    return decoder(
        config,
        layer,
        model_type="muse_spark",
        prefix="model.language_model",
        tied=tied,
    )
