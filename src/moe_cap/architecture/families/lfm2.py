"""LFM2-MoE: gated short convolutions in most layers, attention in the rest."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gated_moe, head_dim_of, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.mixers import Attention, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.recurrent import Recurrent
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm, vector

PREFIX = "feed_forward"
NAMES = ("w1", "w3", "w2")


def _short_convolution(config: Config) -> Recurrent:
    """B, C and x from one projection, a depthwise convolution of `conv_L_cache` steps between them: no other state."""
    hidden_size, kernel = config.size("hidden_size"), config.size("conv_L_cache", default=3)
    bias = config.flag("conv_bias", default=False)
    weights = (
        Weight("conv.conv.weight", (hidden_size, 1, kernel)),
        *(vector("conv.conv.bias", hidden_size, tp_ways=None) if bias else ()),
        *linear("conv.in_proj", 3 * hidden_size, hidden_size, bias=bias),
        *linear("conv.out_proj", hidden_size, hidden_size, bias=bias),
    )
    return Recurrent(weights, hidden_size, 0, hidden_size * kernel, 0)


def _attention(config: Config) -> Attention:
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads, head_dim = config.size("num_key_value_heads", default=heads), head_dim_of(config, hidden_size, heads)
    weights = (
        *linear(f"{SELF_ATTENTION}.q_proj", heads * head_dim, hidden_size, tp_ways=heads),
        *linear(f"{SELF_ATTENTION}.k_proj", kv_heads * head_dim, hidden_size, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.v_proj", kv_heads * head_dim, hidden_size, tp_ways=kv_heads),
        *linear(f"{SELF_ATTENTION}.out_proj", hidden_size, heads * head_dim, tp_ways=heads),
        *norm(f"{SELF_ATTENTION}.q_layernorm", head_dim),
        *norm(f"{SELF_ATTENTION}.k_layernorm", head_dim),
    )
    return Attention(weights, heads, kv_heads, head_dim, head_dim)


def read(config: Config) -> Architecture:
    """LFM2-8B-A1B and larger; the embedding is normed and tied."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds = config.items("layer_types", kind=str, length=number)
    if kinds is None or set(kinds) - {"conv", "full_attention"}:
        raise config.complain("layer_types", "expected a list of conv and full_attention")
    mixers: dict[str, Mixer] = {"conv": _short_convolution(config), "full_attention": _attention(config)}
    num_experts, width = config.size("num_experts"), config.size("moe_intermediate_size")
    bias = Weight(f"{PREFIX}.expert_bias", (num_experts,), 1, is_buffer=True, dtype="fp32")
    corrected = config.flag("use_expert_bias", default=True)
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        prefix=PREFIX,
        router=(*linear(f"{PREFIX}.gate", num_experts, hidden_size, tp_ways=1), *((bias,) if corrected else ())),
        expert=gated_mlp(f"{PREFIX}.experts.0", hidden_size, width, names=NAMES),
    )
    dense = DenseFfn(gated_mlp(PREFIX, hidden_size, config.size("intermediate_size"), names=NAMES))
    first = config.count("num_dense_layers", default=2)
    norms = (*norm("operator_norm", hidden_size), *norm("ffn_norm", hidden_size))
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], dense if i < first else moe, norms),
        model_type="lfm2_moe",
        tied=config.flag("tie_embedding", default=True),
        norms=norm("model.embedding_norm", hidden_size),
    )
