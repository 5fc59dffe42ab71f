"""Inkling: a learned bias for every distance instead of a rotary embedding, short convolutions around every block."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    gated_moe,
    grouped_query_attention,
    pre_norms,
    qk_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias
from moe_cap.architecture.feed_forward import DenseFfn, MoeFfn
from moe_cap.architecture.mixers import Attention, RelativeBias
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm, vector

FULL, SLIDING = "hybrid", "hybrid_sliding"


def _attention(config: Config, kind: str) -> Attention:
    """Keys and values each go through a convolution; two more of them lie behind attention and feed-forward."""
    slides, hidden_size = kind == SLIDING, config.size("hidden_size")
    prefix = "swa_" if slides else ""
    heads, kv_heads = config.size(f"{prefix}num_attention_heads"), config.size(f"{prefix}num_key_value_heads")
    head_dim, rank = config.size(f"{prefix}head_dim"), config.size("d_rel", default=16)
    kernel = config.size("conv_kernel_size", "sconv_kernel_size", default=4)
    window = config.size("sliding_window_size", "sliding_window") if slides else 0
    extent = window or config.size("rel_extent", default=1024)
    width = kv_heads * head_dim
    extra = (
        *linear(f"{SELF_ATTENTION}.r_proj", heads * rank, hidden_size, tp_ways=heads),
        *(Weight(f"{SELF_ATTENTION}.{name}_sconv.conv1d.weight", (width, 1, kernel), kv_heads) for name in ("k", "v")),
        *qk_norms(head_dim),
        # multiplied once per head: part of the score
        Weight(f"{SELF_ATTENTION}.rel_logits_proj.proj", (rank, extent), 1, elementwise=True),
    )
    plain = grouped_query_attention(
        hidden_size, heads, kv_heads, head_dim, extra=extra, reach=Window(window) if slides else Full()
    )
    return replace(plain, window_elements=2 * (width + hidden_size) * kernel, bias=RelativeBias(rank, extent))


def _mixture(config: Config, width: int) -> MoeFfn:
    """The router scores the shared experts as well, which always run."""
    hidden_size, num_experts = config.size("hidden_size"), config.size("n_routed_experts", "num_local_experts")
    num_shared = config.size("n_shared_experts", default=2)
    return gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=(
            *linear("mlp.gate", num_experts + num_shared, hidden_size, tp_ways=1),
            *vector("mlp.gate.global_scale", 1),
            correction_bias("mlp.gate.", num_experts),
        ),
        shared=gated_mlp("mlp.shared_experts", hidden_size, width * num_shared),
    )


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    local = config.items("local_layer_ids", kind=int)
    default = [SLIDING if (i in local if local is not None else (i + 1) % 6) else FULL for i in range(number)]
    return config.layer_types(number, (FULL, SLIDING), default=default)


def _mtp(config: Config, dense: DenseFfn, convolutions: tuple[Weight, ...]) -> tuple[Layer, ...]:
    """MTP layers are dense; one norm behind all of them where `chain_hidden_post_norm` says so."""
    hidden_size, number = config.size("hidden_size"), config.count("num_mtp_layers", default=0)
    local = config.items("mtp_local_layer_ids", kind=int) or ()
    joins = (
        *linear("eh_proj", hidden_size, 2 * hidden_size),
        *norm("enorm", hidden_size),
        *norm("hnorm", hidden_size),
        *convolutions,
    )
    chained = config.flag("chain_hidden_post_norm", default=False)
    last = norm("shared_post_norm", hidden_size) if chained else ()
    return tuple(
        Layer(
            f"model.mtp.layers.{i}",
            _attention(config, SLIDING if i in local else FULL),
            dense,
            pre_norms(hidden_size),
            (*joins, *(last if i == number - 1 else ())),
        )
        for i in range(number)
    )


def _read(config: Config, *, model_type: str, prefix: str) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = _layer_types(config, number)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    # published configs name the width of the experts `intermediate_size` where they have dense layers of another
    renamed = config.has("dense_intermediate_size")
    moe = _mixture(config, config.size("intermediate_size" if renamed else "moe_intermediate_size"))
    width = config.size("dense_intermediate_size", "intermediate_size")
    dense = DenseFfn((*gated_mlp("mlp", hidden_size, width), *vector("mlp.global_scale", 1)))
    sparse = sparse_layers(config, number, first_dense=config.count("dense_mlp_idx", default=0))
    kernel = config.size("conv_kernel_size", "sconv_kernel_size", default=4)
    convolutions = tuple(Weight(f"{name}_sconv.conv1d.weight", (hidden_size, 1, kernel)) for name in ("attn", "mlp"))
    norms = pre_norms(hidden_size)
    arch = decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms, convolutions),
        model_type=model_type,
        prefix=prefix,
        mtp=_mtp(config, dense, convolutions),
    )
    embedding_norm = norm(f"{prefix}.embed_tokens.embed_norm", hidden_size)
    return replace(arch, norms=(*arch.norms, *embedding_norm), tied=False)


def read_text(config: Config) -> Architecture:
    """The language model on its own."""
    return _read(config, model_type="inkling_text", prefix="model")


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; encoders for images and sound are not counted."""
    return _read(text_section(config), model_type="inkling_mm_model", prefix="model.language_model")
