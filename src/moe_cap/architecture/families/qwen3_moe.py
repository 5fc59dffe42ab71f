"""Qwen3-MoE (30B-A3B, 235B-A22B), and the language models of its VL and Omni forms."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    head_dim_of,
    pre_norms,
    qk_norms,
    sparse_layers,
    text_section,
    top_k_of,
    window_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import mtp_layers
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window


def is_sparse(config: Config, index: int) -> bool:
    """Qwen's rule: every `decoder_sparse_step`-th layer is a mixture, save those of `mlp_only_layers`."""
    dense = config.items("mlp_only_layers", kind=int) or ()
    return index not in dense and (index + 1) % config.size("decoder_sparse_step", default=1) == 0


def qwen3_attention(config: Config) -> Attention:
    """GQA with norms on query and key; every layer slides if any does."""
    bias = config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, config.size("hidden_size"), config.size("num_attention_heads"))
    slides = config.flag("use_sliding_window", default=False) and config.has("sliding_window")
    reach = Window(config.size("sliding_window")) if slides else Full()
    return gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norms(head_dim), reach=reach)


def _read(config: Config, *, model_type: str, prefix: str = "model", tied: bool = False) -> Architecture:
    hidden_size = config.size("hidden_size")
    num_experts = config.size("num_experts", "num_local_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    moe = gated_moe(hidden_size, config.size("moe_intermediate_size"), num_experts, top_k)
    mixer, norms = qwen3_attention(config), pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixer, moe if is_sparse(config, index) else dense_ffn(config), norms)

    return decoder(config, layer, model_type=model_type, prefix=prefix, tied=tied)


def read(config: Config) -> Architecture:
    """No shared experts."""
    return _read(config, model_type="qwen3_moe")


def _mellum_attention(config: Config, kind: str) -> Attention:
    bias, head_dim = config.flag("attention_bias", default=False), config.size("head_dim", default=128)
    return gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norms(head_dim), reach=window_of(config, kind))


def _mellum_mtp(config: Config, moe: MoeFfn) -> tuple[Layer, ...]:
    """One layer at most, which slides and is a mixture unless `mtp_layer_types` and `mtp_mlp_layer_types` differ."""
    if not config.count("num_nextn_predict_layers", "num_mtp_layers", default=0):
        return ()
    kinds = config.items("mtp_layer_types", kind=str, length=1) or ("sliding_attention",)
    ffns = config.items("mtp_mlp_layer_types", kind=str, length=1) or ("sparse",)
    return mtp_layers(config, _mellum_attention(config, kinds[0]), moe if ffns[0] == "sparse" else dense_ffn(config))


def read_mellum(config: Config) -> Architecture:
    """Mellum: Qwen3-MoE with windows in some layers."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=["full_attention"] * number)
    mixers = {kind: _mellum_attention(config, kind) for kind in set(kinds)}
    num_experts = config.size("num_experts", "num_local_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    moe = gated_moe(hidden_size, config.size("moe_intermediate_size"), num_experts, top_k)
    sparse, norms = sparse_layers(config, number), pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixers[kinds[index]], moe if sparse[index] else dense_ffn(config), norms)

    return decoder(config, layer, model_type="mellum", mtp=_mellum_mtp(config, moe))


def read_vl(config: Config) -> Architecture:
    """Qwen3-VL-MoE: the language model of the multimodal one; the vision tower is not counted."""
    tied = config.flag("tie_word_embeddings", default=False)
    return _read(text_section(config), model_type="qwen3_vl_moe", prefix="model.language_model", tied=tied)


def read_vl_text(config: Config) -> Architecture:
    """The language model of Qwen3-VL-MoE on its own."""
    return _read(config, model_type="qwen3_vl_moe_text")


def read_omni(config: Config) -> Architecture:
    """Qwen3-Omni: the thinker's language model; encoders, talker and vocoder are not counted."""
    thinker = config.section("thinker_config")
    tied = thinker.flag("tie_word_embeddings", default=False)
    return _read(text_section(thinker), model_type="qwen3_omni_moe", prefix="thinker.model", tied=tied)
