"""Stacks with Mamba layers: Jamba (Mamba 1), Nemotron-H and Granite 4 (Mamba 2)."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    decoder,
    dense_ffn,
    gated_moe,
    gqa_from,
    grouped_query_attention,
    head_dim_of,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router
from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.recurrent import Recurrent
from moe_cap.architecture.weights import Weight, linear, norm, vector


def mamba1(config: Config) -> Recurrent:
    """Mamba 1: h <- a h + b x, y = c h, with `mamba_d_state` values per channel."""
    hidden_size, states = config.size("hidden_size"), config.size("mamba_d_state", default=16)
    width, kernel = hidden_size * config.size("mamba_expand", default=2), config.size("mamba_d_conv", default=4)
    has_rank = config.has("mamba_dt_rank") and not config.is_text("mamba_dt_rank")
    rank = config.size("mamba_dt_rank") if has_rank else -(-hidden_size // 16)
    conv_bias, proj_bias = config.flag("mamba_conv_bias", default=True), config.flag("mamba_proj_bias", default=False)
    weights = (
        Weight("mamba.A_log", (width, states), elementwise=True),
        *vector("mamba.D", width, tp_ways=None),
        Weight("mamba.conv1d.weight", (width, 1, kernel)),
        *(vector("mamba.conv1d.bias", width, tp_ways=None) if conv_bias else ()),
        *linear("mamba.in_proj", 2 * width, hidden_size, bias=proj_bias),
        *linear("mamba.x_proj", rank + 2 * states, width),
        *linear("mamba.dt_proj", width, rank, bias=True),
        *linear("mamba.out_proj", hidden_size, width, bias=proj_bias),
        *norm("mamba.dt_layernorm", rank),
        *norm("mamba.b_layernorm", states),
        *norm("mamba.c_layernorm", states),
    )
    return Recurrent(weights, width, width * states, width * kernel, 4 * width * states)


def mamba2(
    hidden_size: int, heads: int, head_dim: int, groups: int, states: int, kernel: int,
    *, prefix: str, conv_bias: bool, proj_bias: bool,
) -> Recurrent:  # fmt: skip
    """Mamba 2: the same with a scalar decay per head, inputs and outputs shared by the heads of a group."""
    width = heads * head_dim
    channels = width + 2 * groups * states
    weights = (
        *vector(f"{prefix}.dt_bias", heads, tp_ways=heads),
        *vector(f"{prefix}.A_log", heads, tp_ways=heads),
        *vector(f"{prefix}.D", heads, tp_ways=heads),
        Weight(f"{prefix}.conv1d.weight", (channels, 1, kernel), groups),
        *(vector(f"{prefix}.conv1d.bias", channels, tp_ways=groups) if conv_bias else ()),
        *linear(f"{prefix}.in_proj", width + channels + heads, hidden_size, bias=proj_bias, tp_ways=groups),
        *vector(f"{prefix}.norm.weight", width, tp_ways=groups),
        *linear(f"{prefix}.out_proj", hidden_size, width, bias=proj_bias, tp_ways=heads),
    )
    return Recurrent(weights, heads, width * states, channels * kernel, 4 * width * states)


def read_jamba(config: Config) -> Architecture:
    """Jamba 1, 1.5: attention in one layer of eight, a mixture in every second."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    period, offset = config.size("attn_layer_period", default=8), config.count("attn_layer_offset", default=4)
    every, first = config.size("expert_layer_period", default=2), config.count("expert_layer_offset", default=1)
    num_experts = config.size("num_experts", "num_local_experts")
    top_k, prefix = top_k_of(config, num_experts, "num_experts_per_tok"), "feed_forward"
    router = linear(f"{prefix}.router", num_experts, hidden_size, tp_ways=1)
    moe = gated_moe(hidden_size, config.size("intermediate_size"), num_experts, top_k, prefix=prefix, router=router)
    dense = dense_ffn(config, prefix=prefix)
    mamba, attention = mamba1(config), gqa_from(config)
    norms = (*norm("input_layernorm", hidden_size), *norm("pre_ff_layernorm", hidden_size))
    mixers: list[Mixer] = [attention if i % period == offset else mamba for i in range(number)]
    sparse = [num_experts > 1 and i % every == first for i in range(number)]
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[i], moe if sparse[i] else dense, norms),
        model_type="jamba",
        norms=norm("model.final_layernorm", hidden_size),
    )


PATTERN = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}
LEGACY = {"linear_attention": "mamba", "full_attention": "attention"}


def _nemotron_kinds(config: Config, pattern: str, *lists: str) -> tuple[str, ...]:
    """What each layer is, from a word of marks or else from a list."""
    if config.has(pattern):
        marks = config.word(pattern)
        unknown = set(marks) - set(PATTERN)
        if unknown:
            raise config.complain(pattern, f"{sorted(unknown)} are none of {sorted(PATTERN)}")
        return tuple(PATTERN[mark] for mark in marks)
    listed = config.items(*lists, kind=str) or ()
    kinds = tuple(LEGACY.get(kind, kind) for kind in listed)
    if not kinds or set(kinds) - set(PATTERN.values()):
        raise config.complain(lists[0], f"expected a list of {', '.join(PATTERN.values())}")
    return kinds


def _nemotron_mtp(config: Config) -> tuple[Layer, ...]:
    """Rounds of a few layers each, the first behind a projection of [embedding; hidden], the last before a norm.

    As in vllm/model_executor/models/nemotron_h_mtp.py.
    """
    rounds = config.count("num_nextn_predict_layers", default=0)
    if not rounds:
        return ()
    hidden_size = config.size("hidden_size")
    kinds = _nemotron_kinds(config, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    joins = (*linear("eh_proj", hidden_size, 2 * hidden_size), *norm("enorm", hidden_size), *norm("hnorm", hidden_size))
    blocks = {kind: (_nemotron_mixer(config, kind), _nemotron_ffn(config, kind)) for kind in set(kinds)}

    def layer(index: int) -> Layer:
        step = index % len(kinds)
        last = norm("final_layernorm", hidden_size) if step == len(kinds) - 1 else ()
        other = (*(joins if step == 0 else ()), *last)
        return Layer(f"mtp.layers.{index}", *blocks[kinds[step]], norm("norm", hidden_size), other)

    return tuple(map(layer, range(rounds * len(kinds))))


def _nemotron_moe(config: Config) -> MoeFfn:
    """Ungated experts, which work in a narrower latent space where `moe_latent_size` says so."""
    hidden_size, width = config.size("hidden_size"), config.size("moe_intermediate_size")
    bias = config.flag("mlp_bias", default=False)
    num_experts = config.size("n_routed_experts")
    latent = config.size("moe_latent_size", default=hidden_size)
    shared_width = config.size("moe_shared_expert_intermediate_size") * config.size("n_shared_experts", default=1)
    projections = (
        *linear("mixer.fc1_latent_proj", latent, hidden_size, bias=bias, tp_ways=1),
        *linear("mixer.fc2_latent_proj", hidden_size, latent, bias=bias, tp_ways=1),
    )
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(config, num_experts, "num_experts_per_tok"),
        expert=(
            *linear("mixer.experts.0.up_proj", width, latent, bias=bias),
            *linear("mixer.experts.0.down_proj", latent, width, bias=bias),
        ),
        router=corrected_router(num_experts, hidden_size, "mixer.gate"),
        shared=(
            *linear("mixer.shared_experts.up_proj", shared_width, hidden_size, bias=bias),
            *linear("mixer.shared_experts.down_proj", hidden_size, shared_width, bias=bias),
        ),
        dense=projections if config.has("moe_latent_size") else (),
    )


def _nemotron_mixer(config: Config, kind: str) -> Mixer:
    hidden_size = config.size("hidden_size")
    if kind == "mamba":
        return mamba2(
            hidden_size,
            config.size("mamba_num_heads"),
            config.size("mamba_head_dim"),
            config.size("n_groups", "mamba_n_groups"),
            config.size("ssm_state_size"),
            config.size("conv_kernel", "mamba_d_conv", default=4),
            prefix="mixer",
            conv_bias=config.flag("use_conv_bias", "mamba_conv_bias", default=True),
            proj_bias=config.flag("use_bias", "mamba_proj_bias", default=False),
        )
    if kind != "attention":
        return Mixer(())
    heads, kv_heads = config.size("num_attention_heads"), config.size("num_key_value_heads")
    head_dim = head_dim_of(config, hidden_size, heads)
    return grouped_query_attention(hidden_size, heads, kv_heads, head_dim, prefix="mixer")


def _nemotron_ffn(config: Config, kind: str) -> FeedForward:
    if kind == "moe":
        return _nemotron_moe(config)
    if kind != "mlp":
        return DenseFfn(())
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    bias = config.flag("mlp_bias", default=False)
    return DenseFfn(
        (
            *linear("mixer.up_proj", width, hidden_size, bias=bias),
            *linear("mixer.down_proj", hidden_size, width, bias=bias),
        )
    )


def read_nemotron_h(config: Config) -> Architecture:
    """Nemotron-H, Nemotron 3: every layer either mixes tokens or is a feed-forward, with one norm."""
    hidden_size = config.size("hidden_size")
    kinds = _nemotron_kinds(config, "hybrid_override_pattern", "layers_block_type", "layer_types")
    blocks = {kind: (_nemotron_mixer(config, kind), _nemotron_ffn(config, kind)) for kind in set(kinds)}
    norms = norm("norm", hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, *blocks[kinds[i]], norms),
        model_type="nemotron_h",
        num_layers=len(kinds),
        norms=norm("backbone.norm_f", hidden_size),
        prefix="backbone",
        mtp=_nemotron_mtp(config),
    )
