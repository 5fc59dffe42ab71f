"""Granite 3 MoE, with shared experts or windows, and Granite 4 (hybrid with Mamba 2)."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gqa_from, pre_norms, top_k_of, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.mamba import mamba2
from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, vector

MOE = "block_sparse_moe"


def _shared(config: Config) -> tuple[Weight, ...]:
    """Gate and up of the shared expert are one matrix; none where its width is 0."""
    hidden_size, width = config.size("hidden_size"), config.count("shared_intermediate_size", default=0)
    if not width:
        return ()
    return (
        *linear("shared_mlp.input_linear", 2 * width, hidden_size),
        *linear("shared_mlp.output_linear", hidden_size, width),
    )


def _ffn(config: Config) -> FeedForward:
    """A mixture whose experts are stacked in two tensors; without routed experts only the shared one remains."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.count("num_local_experts", "num_experts")
    if not num_experts:
        return DenseFfn(_shared(config))
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(config, num_experts, "num_experts_per_tok"),
        expert=(
            Weight(f"{MOE}.input_linear.weight", (2 * width, hidden_size)),
            Weight(f"{MOE}.output_linear.weight", (hidden_size, width)),
        ),
        router=linear(f"{MOE}.router.layer", num_experts, hidden_size, tp_ways=1),
        shared=_shared(config),
    )


def _read(config: Config, mixers: dict[str, Mixer], kinds: tuple[str, ...], model_type: str) -> Architecture:
    ffn, norms = _ffn(config), pre_norms(config.size("hidden_size"))
    return decoder(config, lambda i, path: Layer(path, mixers[kinds[i]], ffn, norms), model_type=model_type)


def read_moe(config: Config) -> Architecture:
    """Granite 3.0 and 3.1 MoE."""
    bias, number = config.flag("attention_bias", default=False), config.num_layers("num_hidden_layers")
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias)
    return _read(config, {"full_attention": mixer}, ("full_attention",) * number, config.word("model_type"))


def read_swa(config: Config) -> Architecture:
    """The same with windows and sinks in three layers of four."""
    bias, number = config.flag("attention_bias", default=False), config.num_layers("num_hidden_layers")
    heads = config.size("num_attention_heads")
    default = ["sliding_attention" if i % 4 else "full_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    sinks = vector(f"{SELF_ATTENTION}.sinks", heads, tp_ways=heads)
    mixers: dict[str, Mixer] = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=sinks, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    return _read(config, mixers, kinds, "granitemoe_swa")


def read_hybrid(config: Config) -> Architecture:
    """Granite 4: Mamba 2 in most layers."""
    number, hidden_size = config.num_layers("num_hidden_layers"), config.size("hidden_size")
    spelling = {"mamba": "linear_attention", "attention": "full_attention"}
    listed = config.items("layer_types", "layers_block_type", kind=str, length=number) or ("mamba",) * number
    kinds = tuple(spelling.get(kind, kind) for kind in listed)
    bias, heads = config.flag("attention_bias", default=False), config.size("mamba_n_heads", default=128)
    head_dim = hidden_size * config.size("mamba_expand", default=2) // heads
    mamba = mamba2(
        hidden_size,
        heads,
        head_dim,
        config.size("mamba_n_groups", default=1),
        config.size("mamba_d_state", default=256),
        config.size("mamba_d_conv", default=4),
        prefix="mamba",
        conv_bias=config.flag("mamba_conv_bias", default=True),
        proj_bias=config.flag("mamba_proj_bias", default=False),
    )
    if set(kinds) - {"linear_attention", "full_attention"}:
        raise config.complain("layer_types", "expected only mamba and attention")
    mixers: dict[str, Mixer] = {"linear_attention": mamba}
    if "full_attention" in kinds:
        mixers["full_attention"] = gqa_from(config, qkv_bias=bias, o_bias=bias)
    return _read(config, mixers, kinds, "granitemoehybrid")
