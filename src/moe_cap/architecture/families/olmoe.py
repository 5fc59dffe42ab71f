"""OLMoE."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gated_moe, gqa_from, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import norm


def read(config: Config) -> Architecture:
    """Every layer is a mixture; query and key are normed over all heads at once."""
    hidden_size, expert_size = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.size("num_experts", "num_local_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    plain = gqa_from(config)
    qk_norm = (
        *norm(f"{SELF_ATTENTION}.q_norm", hidden_size),
        *norm(f"{SELF_ATTENTION}.k_norm", plain.num_kv_heads * (hidden_size // plain.num_heads)),
    )
    bias = config.flag("attention_bias", default=False)
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norm)
    moe = gated_moe(hidden_size, expert_size, num_experts, top_k)
    norms = pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="olmoe")
