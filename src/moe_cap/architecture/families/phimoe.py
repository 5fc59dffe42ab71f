"""Phi-3.5-MoE."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, gqa_from, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import gated_mlp, linear, norm


def read(config: Config) -> Architecture:
    """Mixtral's mixture under LayerNorms with biases."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.size("num_local_experts", "num_experts")
    top_k, prefix = top_k_of(config, num_experts, "num_experts_per_tok"), "block_sparse_moe"
    expert = gated_mlp(f"{prefix}.experts.0", hidden_size, width, names=("w1", "w3", "w2"))
    router = linear(f"{prefix}.gate", num_experts, hidden_size, tp_ways=1)
    moe = gated_moe(hidden_size, width, num_experts, top_k, prefix=prefix, expert=expert, router=router)
    bias = config.flag("attention_bias", default=False)
    reach = Window(config.size("sliding_window")) if config.has("sliding_window") else Full()
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, reach=reach)
    norms = pre_norms(hidden_size, bias=True)
    return decoder(
        config,
        lambda _, path: Layer(path, mixer, moe, norms),
        model_type="phimoe",
        norms=norm("model.norm", hidden_size, bias=True),
        lm_head_bias=config.flag("lm_head_bias", default=False),
    )
