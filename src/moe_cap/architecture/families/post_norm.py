"""Families with norms after their blocks or with gates on attention: FlexOlmo, AFMoE (Trinity), EXAONE-MoE, Hunyuan."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    head_dim_of,
    pre_norms,
    qk_norms,
    sparse_layers,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias, deepseek_moe
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm


def read_flex_olmo(config: Config) -> Architecture:
    """FlexOlmo: OLMoE's attention, norms after attention and mixture instead of before."""
    hidden_size = config.size("hidden_size")
    num_experts = config.size("num_experts", "num_local_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    plain, bias = gqa_from(config), config.flag("attention_bias", default=False)
    qk_norm = (
        *norm(f"{SELF_ATTENTION}.q_norm", plain.num_heads * plain.qk_head_dim),
        *norm(f"{SELF_ATTENTION}.k_norm", plain.num_kv_heads * plain.qk_head_dim),
    )
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norm)
    moe = gated_moe(hidden_size, config.size("intermediate_size"), num_experts, top_k)
    norms = (*norm("post_attention_layernorm", hidden_size), *norm("post_feedforward_layernorm", hidden_size))
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="flex_olmo")


def read_exaone_moe(config: Config) -> Architecture:
    """EXAONE-MoE: windows in three layers of four, DeepSeek's mixture."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    every = config.count("sliding_window_pattern", default=4) if config.has("sliding_window") else 1
    default = ["sliding_attention" if (i + 1) % max(every, 1) else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    head_dim = head_dim_of(config, hidden_size, config.size("num_attention_heads"))
    mixers = {kind: gqa_from(config, extra=qk_norms(head_dim), reach=window_of(config, kind)) for kind in set(kinds)}
    sparse, moe, dense = sparse_layers(config, number, first_dense=1), deepseek_moe(config), dense_ffn(config)
    norms = pre_norms(hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms),
        model_type="exaone_moe",
    )


def read_afmoe(config: Config) -> Architecture:
    """AFMoE (Trinity): four norms a layer, a gate on attention's output, windows in three layers of four."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    every = config.size("global_attn_every_n_layers", default=4)
    default = ["sliding_attention" if (i + 1) % every else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    heads, bias = config.size("num_attention_heads"), config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, hidden_size, heads)
    gate = linear(f"{SELF_ATTENTION}.gate_proj", heads * head_dim, hidden_size, tp_ways=heads)
    extra = (*qk_norms(head_dim), *gate)
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=extra, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    num_experts, width = config.size("num_experts"), config.size("moe_intermediate_size")
    num_shared = config.count("num_shared_experts", default=0)
    router = (
        *linear("mlp.router.gate", num_experts, hidden_size, tp_ways=1),
        Weight("mlp.expert_bias", (num_experts,), 1, dtype="fp32"),
    )
    shared = gated_mlp("mlp.shared_experts", hidden_size, width * num_shared) if num_shared else ()
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    moe = gated_moe(hidden_size, width, num_experts, top_k, router=router, shared=shared)
    first, dense = config.count("num_dense_layers", default=1), dense_ffn(config)
    norms = (
        *pre_norms(hidden_size),
        *norm("pre_mlp_layernorm", hidden_size),
        *norm("post_mlp_layernorm", hidden_size),
    )
    return decoder(
        config, lambda i, path: Layer(path, mixers[kinds[i]], dense if i < first else moe, norms), model_type="afmoe"
    )


def read_hunyuan_v1(config: Config) -> Architecture:
    """Hunyuan-A13B: one shared expert as wide as a routed one, norms on query and key."""
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    width, bias = config.size("intermediate_size"), config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, hidden_size, heads)
    qk_norm = (
        *norm(f"{SELF_ATTENTION}.query_layernorm", head_dim),
        *norm(f"{SELF_ATTENTION}.key_layernorm", head_dim),
    )
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norm)
    num_experts = config.size("num_experts")
    top_k = config.items("moe_topk", kind=int) if config.is_list("moe_topk") else None
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k[0] if top_k else top_k_of(config, num_experts, "moe_topk"),
        router=linear("mlp.gate.wg", num_experts, hidden_size, tp_ways=1),
        shared=gated_mlp("mlp.shared_mlp", hidden_size, width),
    )
    norms = pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="hunyuan_v1_moe")


def read_hy_v3(config: Config) -> Architecture:
    """Hunyuan 3: DeepSeek's mixture under GQA with norms on query and key."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    bias = config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, hidden_size, config.size("num_attention_heads"))
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norms(head_dim))
    num_experts, width = config.size("num_experts"), config.size("moe_intermediate_size")
    num_shared = config.count("num_shared_experts", default=0)
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=(
            *linear("mlp.router.gate", num_experts, hidden_size, tp_ways=1),
            correction_bias("mlp.", num_experts),
        ),
        shared=gated_mlp("mlp.shared_mlp", hidden_size, width * num_shared) if num_shared else (),
    )
    sparse, dense = sparse_layers(config, number, first_dense=1), dense_ffn(config)
    norms = pre_norms(hidden_size)
    return decoder(config, lambda i, path: Layer(path, mixer, moe if sparse[i] else dense, norms), model_type="hy_v3")
