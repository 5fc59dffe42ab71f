"""Step-3.5 and 3.7 Flash: gated attention, windows in three layers of four, more heads where the window slides."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    grouped_query_attention,
    pre_norms,
    qk_norms,
    text_section,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, linear


def _attention(config: Config, kind: str) -> Attention:
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", "num_attention_groups")
    if kind == "sliding_attention":
        other = config.section("attention_other_setting") if config.has("attention_other_setting") else config
        heads = other.size("num_sliding_attention_heads", "num_attention_heads", default=heads)
    head_dim = config.size("head_dim", default=128)
    gate = linear(f"{SELF_ATTENTION}.g_proj", heads, hidden_size, tp_ways=heads)
    extra = (*qk_norms(head_dim), *gate)
    return grouped_query_attention(hidden_size, heads, kv_heads, head_dim, extra=extra, reach=window_of(config, kind))


def _sparse(config: Config, number: int) -> tuple[bool, ...]:
    if config.has("mlp_layer_types"):
        kinds = config.items("mlp_layer_types", kind=str, length=number) or ()
        return tuple(kind == "sparse" for kind in kinds)
    if config.has("moe_layers_enum"):
        listed = {int(item) for item in config.word("moe_layers_enum").split(",") if item.strip()}
        return tuple(index in listed for index in range(number))
    first = config.count("first_k_dense_replace", default=3)
    return tuple(index >= first for index in range(number))


def _read(config: Config, *, prefix: str) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=["full_attention"] * number)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    num_experts = config.size("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
    shared = config.size("share_expert_dim", "share_expert_dims", "shared_intermediate_size")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok", "moe_top_k"),
        router=corrected_router(num_experts, hidden_size),
        shared=gated_mlp("mlp.shared_experts", hidden_size, shared),
    )
    sparse, norms = _sparse(config, number), pre_norms(hidden_size)
    dense = dense_ffn(config, "dense_intermediate_size", "intermediate_size")
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms),
        model_type="step3p7",
        prefix=prefix,
    )


def read(config: Config) -> Architecture:
    """The language model, nested in `text_config` or flat; vision tower and MTP layers are not counted."""
    if config.has("text_config"):
        return _read(text_section(config), prefix="model.language_model")
    return _read(config, prefix="model")
