"""Kolibri 1: windows in four layers of five, norms after attention and mixture as well as before."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, gqa_from, pre_norms, qk_norms, top_k_of, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, norm


def read(config: Config) -> Architecture:
    """Every layer is a mixture with one shared expert."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = ["sliding_attention" if (i + 1) % 5 else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    head_norms = qk_norms(config.size("head_dim"))
    mixers = {kind: gqa_from(config, extra=head_norms, reach=window_of(config, kind)) for kind in set(kinds)}
    num_experts = config.size("num_experts", "num_local_experts")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size),
        shared=gated_mlp("mlp.shared_experts", hidden_size, config.size("shared_expert_intermediate_size")),
    )
    norms = (
        *pre_norms(hidden_size),
        *norm("post_self_attn_layernorm", hidden_size),
        *norm("post_mlp_layernorm", hidden_size),
    )
    return decoder(config, lambda i, path: Layer(path, mixers[kinds[i]], moe, norms), model_type="kolibri1")
