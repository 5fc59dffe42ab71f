"""Mixtral 8x7B and 8x22B."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, gqa_from, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import gated_mlp


def read(config: Config) -> Architecture:
    """Every layer is a mixture; experts are named w1 (gate), w3 (up), w2 (down)."""
    hidden_size, expert_size = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.size("num_local_experts", "num_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    prefix = "block_sparse_moe"
    expert = gated_mlp(f"{prefix}.experts.0", hidden_size, expert_size, names=("w1", "w3", "w2"))
    moe = gated_moe(hidden_size, expert_size, num_experts, top_k, prefix=prefix, expert=expert)
    mixer = gqa_from(config, reach=Window(config.size("sliding_window")) if config.has("sliding_window") else Full())
    norms = pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="mixtral")
