"""Inkling 2: Inkling with gates and sinks that depend on the token, and attention over earlier blocks' outputs."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    gated_moe,
    grouped_query_attention,
    pre_norms,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.mixers import Attention, RelativeBias
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import Weight, linear, norm

FULL, SLIDING = "hybrid", "hybrid_sliding"


def _convolution(
    name: str, hidden_size: int, heads: int, width: int, kernel: int, *, fixed: bool
) -> tuple[Weight, ...]:
    """Over keys or values; in full attention its weights are projected from the token, on top of learned ones."""
    prefix = f"{SELF_ATTENTION}.{name}_sconv"
    if fixed:
        return (Weight(f"{prefix}.conv1d.weight", (width, 1, kernel), heads),)
    static = Weight(f"{prefix}.static_weight", (kernel, width), heads, elementwise=True)
    return (static, *linear(f"{prefix}.weight_proj", heads * kernel, hidden_size, tp_ways=heads))


def _attention(config: Config, kind: str) -> Attention:
    slides, hidden_size = kind == SLIDING, config.size("hidden_size")
    prefix = "swa_" if slides else ""
    heads, kv_heads = config.size(f"{prefix}num_attention_heads"), config.size(f"{prefix}num_key_value_heads")
    head_dim, rank = config.size(f"{prefix}head_dim"), config.size("d_rel", default=16)
    kernel = config.size("conv_kernel_size", "sconv_kernel_size", default=4)
    window = config.size("sliding_window_size", "sliding_window") if slides else 0
    extent, width = window or config.size("rel_extent", default=1024), kv_heads * head_dim
    extra = (
        *linear(f"{SELF_ATTENTION}.r_proj", heads * rank, hidden_size, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.gate_proj", heads * head_dim, hidden_size, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.sink_proj", heads, hidden_size, tp_ways=heads),
        *_convolution("k", hidden_size, kv_heads, width, kernel, fixed=slides),
        *_convolution("v", hidden_size, kv_heads, width, kernel, fixed=slides),
        Weight(f"{SELF_ATTENTION}.q_l2_clip.scale", (heads, head_dim), heads, elementwise=True),
        Weight(f"{SELF_ATTENTION}.rel_l2_clip.scale", (heads, rank), heads, elementwise=True),
        Weight(f"{SELF_ATTENTION}.rel_logits_proj.proj", (rank, extent), 1, elementwise=True),
    )
    plain = grouped_query_attention(
        hidden_size, heads, kv_heads, head_dim, extra=extra, reach=Window(window) if slides else Full()
    )
    return replace(plain, window_elements=2 * (width + hidden_size) * kernel, bias=RelativeBias(rank, extent))


def _norms(hidden_size: int, kind: str) -> tuple[Weight, ...]:
    """Queries, keys and values of full attention have inputs of their own."""
    if kind == SLIDING:
        return pre_norms(hidden_size)
    names = ("q_input_layernorm", "k_input_layernorm", "v_input_layernorm", "post_attention_layernorm")
    return tuple(weight for name in names for weight in norm(name, hidden_size))


def _other(config: Config, kind: str, *, is_first: bool) -> tuple[Weight, ...]:
    """Learned queries over the outputs of earlier blocks, and the convolutions behind attention and mixture."""
    hidden_size, kernel = config.size("hidden_size"), config.size("conv_kernel_size", "sconv_kernel_size", default=4)
    shape = (hidden_size,) if kind == SLIDING else (3, hidden_size)
    return (
        *(() if is_first else (Weight("attention_input.query", shape, 1, elementwise=True),)),
        Weight("mlp_input.query", (hidden_size,), 1),
        Weight("post_attention_convolution.conv1d.weight", (hidden_size, 1, kernel)),
        Weight("post_mlp_convolution.conv1d.weight", (hidden_size, 1, kernel)),
    )


def _read(config: Config, *, model_type: str, prefix: str) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = [SLIDING if (i + 1) % 6 else FULL for i in range(number)]
    kinds = config.layer_types(number, (FULL, SLIDING), default=default)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    num_experts = config.size("n_routed_experts", "num_local_experts")
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size", "intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size),
    )

    def layer(index: int, path: str) -> Layer:
        kind = kinds[index]
        return Layer(path, mixers[kind], moe, _norms(hidden_size, kind), _other(config, kind, is_first=index == 0))

    last = Weight(f"{prefix}.final_input.query", (hidden_size,), 1)
    arch = decoder(config, layer, model_type=model_type, prefix=prefix, other=(last,))
    embedding_norm = norm(f"{prefix}.embed_tokens.embed_norm", hidden_size)
    return replace(arch, norms=(*arch.norms, *embedding_norm), tied=False)


def read_text(config: Config) -> Architecture:
    """The language model on its own; what its learned queries cost over earlier blocks is not counted as FLOPs."""
    return _read(config, model_type="inkling2_text", prefix="model")


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted."""
    return _read(text_section(config), model_type="inkling2", prefix="model.language_model")
