"""MiniMax-Text-01 (lightning attention), M2 (GQA) and M3 (block-sparse attention)."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    gated_moe,
    gqa_from,
    head_dim_of,
    pre_norms,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.recurrent import Recurrent
from moe_cap.architecture.weights import gated_mlp, linear, norm

MOE = "block_sparse_moe"


def _lightning(config: Config) -> Recurrent:
    """S <- decay S + k v^T per head: an update and a read of head_dim x head_dim values (MiniMax-01, 2.2)."""
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    head_dim = head_dim_of(config, hidden_size, heads)
    width, state = heads * head_dim, heads * head_dim * head_dim
    weights = (
        *norm(f"{SELF_ATTENTION}.norm", width),
        *linear(f"{SELF_ATTENTION}.qkv_proj", 3 * width, hidden_size, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.out_proj", hidden_size, width, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.output_gate", width, hidden_size, tp_ways=heads),
    )
    return Recurrent(weights, heads, state, 0, 4 * state)


def read_text_01(config: Config) -> Architecture:
    """MiniMax-Text-01 and M1: lightning attention in most layers, softmax attention in the rest."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = ["linear_attention" if i % 2 else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("linear_attention", "full_attention"), default=default)
    mixers: dict[str, Mixer] = {"linear_attention": _lightning(config), "full_attention": gqa_from(config)}
    num_experts = config.size("num_local_experts", "num_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    width = config.size("intermediate_size")
    expert = gated_mlp(f"{MOE}.experts.0", hidden_size, width, names=("w1", "w3", "w2"))
    moe = gated_moe(hidden_size, width, num_experts, top_k, prefix=MOE, expert=expert)
    norms = pre_norms(hidden_size)
    return decoder(config, lambda i, path: Layer(path, mixers[kinds[i]], moe, norms), model_type="minimax")


def read_m2(config: Config) -> Architecture:
    """MiniMax-M2 to M2.7: query and key are normed over all heads at once. The weights of its MTP are not published."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.size("num_local_experts", "num_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    plain = gqa_from(config)
    qk_norm = (
        *norm(f"{SELF_ATTENTION}.q_norm", plain.num_heads * plain.qk_head_dim),
        *norm(f"{SELF_ATTENTION}.k_norm", plain.num_kv_heads * plain.qk_head_dim),
    )
    mixer = gqa_from(config, extra=qk_norm)
    router = (*linear(f"{MOE}.gate", num_experts, hidden_size, tp_ways=1), correction_bias(f"{MOE}.", num_experts))
    expert = gated_mlp(f"{MOE}.experts.0", hidden_size, width, names=("w1", "w3", "w2"))
    moe = gated_moe(hidden_size, width, num_experts, top_k, router=router, expert=expert)
    norms = pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="minimax_m2")
