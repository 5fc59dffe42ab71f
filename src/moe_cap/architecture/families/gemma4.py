"""Gemma 4: windows in five layers of six, wider heads in the sixth, a dense MLP beside the mixture, shared caches."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, text_section, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm, vector


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    """One layer of six sees everything, and the last one always does."""
    default = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("sliding_attention", "full_attention"), default=default)
    return (*kinds[:-1], "full_attention")


def _attention(config: Config, kind: str, *, reuses: bool, one_projection: bool) -> Attention:
    """Global layers have heads of their own width, and may use their keys as values (both are cached all the same)."""
    hidden_size, heads, bias = (
        config.size("hidden_size"),
        config.size("num_attention_heads"),
        config.flag("attention_bias", default=False),
    )
    wide = kind == "full_attention"
    head_dim = config.size("global_head_dim", default=512) if wide else config.size("head_dim", default=256)
    keys_are_values = wide and one_projection
    kv_heads = config.size("num_key_value_heads")
    if keys_are_values:
        kv_heads = config.size("num_global_key_value_heads", default=kv_heads)
    key = (
        *norm(f"{SELF_ATTENTION}.k_norm", head_dim),
        *linear(f"{SELF_ATTENTION}.k_proj", kv_heads * head_dim, hidden_size, bias=bias, tp_ways=kv_heads),
    )
    value = linear(f"{SELF_ATTENTION}.v_proj", kv_heads * head_dim, hidden_size, bias=bias, tp_ways=kv_heads)
    weights = (
        *linear(f"{SELF_ATTENTION}.q_proj", heads * head_dim, hidden_size, bias=bias, tp_ways=heads),
        *norm(f"{SELF_ATTENTION}.q_norm", head_dim),
        *(() if reuses else key),
        *(() if reuses or keys_are_values else value),
        *linear(f"{SELF_ATTENTION}.o_proj", hidden_size, heads * head_dim, bias=bias, tp_ways=heads),
    )
    reach = Full() if wide else Window(config.size("sliding_window"))
    return Attention(weights, heads, kv_heads, head_dim, head_dim, reach, shares_cache=reuses)


def _mixture(config: Config, dense: DenseFfn) -> MoeFfn:
    """The mixture works beside the dense MLP, not instead of it."""
    hidden_size, width = config.size("hidden_size"), config.size("moe_intermediate_size", "expert_intermediate_size")
    num_experts = config.size("num_experts")
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(config, num_experts, "top_k_experts"),
        expert=gated_mlp("experts.0", hidden_size, width),
        router=(
            *vector("router.scale", hidden_size),
            *vector("router.per_expert_scale", num_experts),
            *linear("router.proj", num_experts, hidden_size, tp_ways=1),
        ),
        dense=dense.weights,
    )


def _norms(config: Config, *, mixture: bool) -> tuple[Weight, ...]:
    names = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    if mixture:
        names += ["post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2"]
    if config.count("hidden_size_per_layer_input", default=0):
        names.append("post_per_layer_input_norm")
    return tuple(weight for name in names for weight in norm(name, config.size("hidden_size")))


def _per_layer_input(config: Config) -> tuple[Weight, ...]:
    """Each layer's own small embedding of the token, gated in; and the layer's output scale."""
    hidden_size, width = config.size("hidden_size"), config.count("hidden_size_per_layer_input", default=0)
    scalar = Weight("layer_scalar", (1,), 1, is_buffer=True)
    if not width:
        return (scalar,)
    gate = linear("per_layer_input_gate", width, hidden_size, tp_ways=1)
    return (*gate, *linear("per_layer_projection", hidden_size, width, tp_ways=1), scalar)


def _per_layer_tables(config: Config, number: int, prefix: str) -> tuple[tuple[Weight, ...], tuple[Weight, ...]]:
    """The table of those embeddings and its projection (part `other`), and its norm."""
    width = config.count("hidden_size_per_layer_input", default=0)
    if not width:
        return (), ()
    rows = config.size("vocab_size_per_layer_input", default=config.size("vocab_size"))
    table = Weight(f"{prefix}.embed_tokens_per_layer.weight", (rows, number * width), lookup=1)
    projection = linear(f"{prefix}.per_layer_model_projection", number * width, config.size("hidden_size"))
    return (table, *projection), norm(f"{prefix}.per_layer_projection_norm", width)


def read_decoder(config: Config, *, model_type: str, prefix: str, tied: bool, all_mixed: bool = False) -> Architecture:
    """The stack. With `all_mixed` the config says neither that layers are mixtures nor that keys serve as values."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds, shared = _layer_types(config, number), config.count("num_kv_shared_layers", default=0)
    mixture = config.flag("enable_moe_block", default=all_mixed)
    one_projection = config.flag("attention_k_eq_v", default=all_mixed)
    width = config.size("intermediate_size")
    dense = DenseFfn(gated_mlp("mlp", hidden_size, width))
    wide = config.flag("use_double_wide_mlp", default=False)
    dense_reusing = DenseFfn(gated_mlp("mlp", hidden_size, 2 * width)) if wide else dense
    mixers = {
        (kind, reuses): _attention(config, kind, reuses=reuses, one_projection=one_projection)
        for kind in set(kinds)
        for reuses in (False, True)
    }
    norms, other = _norms(config, mixture=mixture), _per_layer_input(config)
    ffns: dict[bool, FeedForward] = {False: dense, True: dense_reusing}
    if mixture:
        ffns = {reuses: _mixture(config, ffn) for reuses, ffn in ((False, dense), (True, dense_reusing))}

    def layer(index: int, path: str) -> Layer:
        reuses = index >= number - shared
        return Layer(path, mixers[kinds[index], reuses], ffns[reuses], norms, other)

    tables, table_norm = _per_layer_tables(config, number, prefix)
    arch = decoder(config, layer, model_type=model_type, prefix=prefix, tied=tied, other=tables)
    return replace(arch, norms=(*arch.norms, *table_norm))


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; vision and audio towers are not counted."""
    tied = config.flag("tie_word_embeddings", default=True)
    return read_decoder(text_section(config), model_type="gemma4", prefix="model.language_model", tied=tied)


def read_text(config: Config) -> Architecture:
    """The language model on its own."""
    return read_decoder(config, model_type="gemma4_text", prefix="model", tied=True)
