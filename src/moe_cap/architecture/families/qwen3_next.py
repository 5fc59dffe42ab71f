"""Qwen3-Next and Qwen3.5-MoE: gated delta networks in three layers of four, gated attention in the fourth."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, dense_ffn, pre_norms, qk_norms, text_section
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.qwen2_moe import shared_expert_moe
from moe_cap.architecture.families.qwen3_moe import is_sparse
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import Attention, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.recurrent import Recurrent
from moe_cap.architecture.weights import Weight, linear, norm, vector

PREFIX = "linear_attn"


def gated_attention(config: Config) -> Attention:
    """GQA whose query projection also makes an output gate, so that it is twice as wide."""
    hidden_size, head_dim = config.size("hidden_size"), config.size("head_dim", default=256)
    heads, kv_heads = config.size("num_attention_heads"), config.size("num_key_value_heads")
    bias = config.flag("attention_bias", default=False)
    weights = (
        *linear(f"{SELF_ATTENTION}.q_proj", 2 * heads * head_dim, hidden_size, bias=bias, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.k_proj", kv_heads * head_dim, hidden_size, bias=bias, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.v_proj", kv_heads * head_dim, hidden_size, bias=bias, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.o_proj", hidden_size, heads * head_dim, bias=bias, tp_ways=heads),
        *qk_norms(head_dim),
    )
    return Attention(weights, heads, kv_heads, head_dim, head_dim)


def _delta_net(config: Config, projections: tuple[Weight, ...]) -> Recurrent:
    """The recurrence S <- a S + b (v - S k) k^T per value head: a lookup, an update and a read of dk x dv values."""
    hidden_size, kernel = config.size("hidden_size"), config.size("linear_conv_kernel_dim", default=4)
    key_heads, value_heads = config.size("linear_num_key_heads"), config.size("linear_num_value_heads")
    key_dim, value_dim = config.size("linear_key_head_dim"), config.size("linear_value_head_dim")
    channels = 2 * key_heads * key_dim + value_heads * value_dim
    state = value_heads * key_dim * value_dim
    weights = (
        *vector(f"{PREFIX}.dt_bias", value_heads, tp_ways=value_heads),
        *vector(f"{PREFIX}.A_log", value_heads, tp_ways=value_heads),
        Weight(f"{PREFIX}.conv1d.weight", (channels, 1, kernel), key_heads),
        *projections,
        *norm(f"{PREFIX}.norm", value_dim),
        *linear(f"{PREFIX}.out_proj", hidden_size, value_heads * value_dim, tp_ways=value_heads),
    )
    return Recurrent(weights, key_heads, state, channels * kernel, 6 * state)


def _widths(config: Config) -> tuple[int, int, int, int]:
    key = config.size("linear_num_key_heads") * config.size("linear_key_head_dim")
    value_heads = config.size("linear_num_value_heads")
    return config.size("hidden_size"), key, value_heads * config.size("linear_value_head_dim"), value_heads


def qwen3_5_delta_net(config: Config) -> Recurrent:
    """A gated delta network with a projection for each of its inputs."""
    return _delta_net(config, _separate_projections(config))


def _fused_projections(config: Config) -> tuple[Weight, ...]:
    hidden_size, key, value, heads = _widths(config)
    return (
        *linear(f"{PREFIX}.in_proj_qkvz", 2 * key + 2 * value, hidden_size),
        *linear(f"{PREFIX}.in_proj_ba", 2 * heads, hidden_size),
    )


def _separate_projections(config: Config) -> tuple[Weight, ...]:
    hidden_size, key, value, heads = _widths(config)
    return (
        *linear(f"{PREFIX}.in_proj_qkv", 2 * key + value, hidden_size),
        *linear(f"{PREFIX}.in_proj_z", value, hidden_size),
        *linear(f"{PREFIX}.in_proj_b", heads, hidden_size),
        *linear(f"{PREFIX}.in_proj_a", heads, hidden_size),
    )


def _hybrid(config: Config, delta: Recurrent, *, model_type: str, prefix: str, tied: bool = False) -> Architecture:
    number = config.num_layers("num_hidden_layers")
    every = config.size("full_attention_interval", default=4)
    default = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("linear_attention", "full_attention"), default=default)
    mixers: dict[str, Mixer] = {"linear_attention": delta, "full_attention": gated_attention(config)}
    moe, norms = shared_expert_moe(config), pre_norms(config.size("hidden_size"))

    def layer(index: int, path: str) -> Layer:
        ffn = moe if is_sparse(config, index) else dense_ffn(config)
        return Layer(path, mixers[kinds[index]], ffn, norms)

    return decoder(
        config, layer, model_type=model_type, prefix=prefix, tied=tied, mtp=_mtp(config, mixers["full_attention"], moe)
    )


def _mtp(config: Config, mixer: Mixer, moe: MoeFfn) -> tuple[Layer, ...]:
    """Qwen3.5's own MTP stack: a projection of [embedding; hidden] with a norm on each, attention layers, a norm."""
    hidden_size, number = config.size("hidden_size"), config.count("mtp_num_hidden_layers", default=0)
    joins = (
        *linear("fc", hidden_size, 2 * hidden_size),
        *norm("pre_fc_norm_embedding", hidden_size),
        *norm("pre_fc_norm_hidden", hidden_size),
        *norm("norm", hidden_size),
    )
    return tuple(
        Layer(f"mtp.layers.{i}", mixer, moe, pre_norms(hidden_size), joins if i == 0 else ()) for i in range(number)
    )


def read_qwen3_next(config: Config) -> Architecture:
    """Qwen3-Next-80B-A3B."""
    delta = _delta_net(config, _fused_projections(config))
    return _hybrid(config, delta, model_type="qwen3_next", prefix="model")


def read_qwen3_5_text(config: Config) -> Architecture:
    """Qwen3.5-MoE, language model only."""
    return _hybrid(config, qwen3_5_delta_net(config), model_type="qwen3_5_moe_text", prefix="model")


def read_qwen3_5(config: Config) -> Architecture:
    """Qwen3.5-MoE: the language model of the multimodal one; the vision tower is not counted."""
    text = text_section(config)
    delta = qwen3_5_delta_net(text)
    tied = config.flag("tie_word_embeddings", default=False)
    return _hybrid(text, delta, model_type="qwen3_5_moe", prefix="model.language_model", tied=tied)
