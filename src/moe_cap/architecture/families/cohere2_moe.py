"""Command with a mixture (Cohere2 MoE): one norm before attention and mixture, which run side by side."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, dense_ffn, gated_moe, gqa_from, sparse_layers, top_k_of, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, norm


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    """Windows in all but every fourth layer; the first dense layers keep a pattern of their own."""
    dense = config.count("first_k_dense_replace", default=0)
    own, rest = (
        config.size("prefix_dense_sliding_window_pattern", default=1),
        config.size("sliding_window_pattern", default=4),
    )
    default = ["sliding_attention" if (i + 1) % own else "full_attention" for i in range(min(dense, number))] + [
        "sliding_attention" if (i + 1) % rest else "full_attention" for i in range(number - dense)
    ]
    return config.layer_types(number, ("full_attention", "sliding_attention"), default=default)


def read(config: Config) -> Architecture:
    """Shared experts are fused into one MLP as in DeepSeek."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds, bias = _layer_types(config, number), config.flag("attention_bias", default=False)
    mixers = {kind: gqa_from(config, qkv_bias=bias, o_bias=bias, reach=window_of(config, kind)) for kind in set(kinds)}
    num_experts, width = config.size("num_experts", "num_local_experts"), config.size("intermediate_size")
    num_shared = config.count("num_shared_experts", default=0)
    shared = gated_mlp("mlp.shared_experts", hidden_size, width * num_shared) if num_shared else ()
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    moe = gated_moe(hidden_size, width, num_experts, top_k, shared=shared)
    sparse = sparse_layers(config, number)
    dense = dense_ffn(config, "prefix_dense_intermediate_size", "intermediate_size")
    norms = norm("input_layernorm", hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms),
        model_type="cohere2_moe",
        tied=True,
    )
