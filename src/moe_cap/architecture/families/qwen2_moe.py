"""Qwen1.5-MoE and Qwen2-MoE."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, dense_ffn, gated_moe, gqa_from, pre_norms, top_k_of, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.qwen3_moe import is_sparse
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear


def gated_shared_expert(hidden_size: int, shared_size: int) -> tuple[Weight, ...]:
    """One wide shared expert behind a sigmoid gate of its own."""
    shared = gated_mlp("mlp.shared_expert", hidden_size, shared_size)
    return (*shared, *linear("mlp.shared_expert_gate", 1, hidden_size, tp_ways=1))


def shared_expert_moe(config: Config) -> MoeFfn:
    """Routed experts beside that one."""
    hidden_size = config.size("hidden_size")
    num_experts = config.size("num_experts", "num_local_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    shared = gated_shared_expert(hidden_size, config.size("shared_expert_intermediate_size"))
    return gated_moe(hidden_size, config.size("moe_intermediate_size"), num_experts, top_k, shared=shared)


def _layer_types(config: Config) -> tuple[str, ...]:
    number = config.num_layers("num_hidden_layers")
    slides = config.flag("use_sliding_window", default=False)
    first = config.count("max_window_layers", default=28)
    default = ["sliding_attention" if slides and i % 2 == 0 and i < first else "full_attention" for i in range(number)]
    return config.layer_types(number, ("full_attention", "sliding_attention"), default=default)


def read(config: Config) -> Architecture:
    """Biases on q, k and v; a shared expert beside the routed ones."""
    hidden_size, kinds = config.size("hidden_size"), _layer_types(config)
    bias = config.flag("qkv_bias", default=True)
    mixers = {kind: gqa_from(config, qkv_bias=bias, reach=window_of(config, kind)) for kind in set(kinds)}
    moe, norms = shared_expert_moe(config), pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixers[kinds[index]], moe if is_sparse(config, index) else dense_ffn(config), norms)

    return decoder(config, layer, model_type="qwen2_moe")
