"""Llama 4: chunked attention in three layers of four, one routed expert and one shared expert per token."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, dense_ffn, gated_moe, gqa_from, pre_norms, text_section, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Chunk, Full, Reach
from moe_cap.architecture.weights import gated_mlp, linear

PREFIX = "feed_forward"


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    """Layers without rotary embedding see everything, the others their own chunk."""
    rotary = config.items("no_rope_layers", kind=int)
    every = config.size("no_rope_layer_interval", default=4)
    flags = rotary or tuple(int((i + 1) % every != 0) for i in range(number))
    default = ["chunked_attention" if flag else "full_attention" for flag in flags[:number]]
    return config.layer_types(number, ("chunked_attention", "full_attention"), default=default)


def _read(config: Config, *, model_type: str, prefix: str) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds, bias = _layer_types(config, number), config.flag("attention_bias", default=False)
    chunk = Chunk(config.size("attention_chunk_size", default=8192))
    reaches: dict[str, Reach] = {"chunked_attention": chunk, "full_attention": Full()}
    mixers = {kind: gqa_from(config, qkv_bias=bias, o_bias=bias, reach=reaches[kind]) for kind in set(kinds)}
    num_experts, width = config.size("num_local_experts", "num_experts"), config.size("intermediate_size")
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        prefix=PREFIX,
        router=linear(f"{PREFIX}.router", num_experts, hidden_size, tp_ways=1),
        shared=gated_mlp(f"{PREFIX}.shared_expert", hidden_size, width),
    )
    step = config.size("interleave_moe_layer_step", default=1)
    sparse = config.items("moe_layers", kind=int) or tuple(range(step - 1, number, step))
    dense = dense_ffn(config, "intermediate_size_mlp", prefix=PREFIX) if len(set(sparse)) < number else None
    norms = pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixers[kinds[index]], moe if index in sparse or dense is None else dense, norms)

    return decoder(config, layer, model_type=model_type, prefix=prefix)


def read(config: Config) -> Architecture:
    """Scout, Maverick: the language model of the multimodal one; the vision tower is not counted."""
    return _read(text_section(config), model_type="llama4", prefix="language_model.model")


def read_text(config: Config) -> Architecture:
    """The language model on its own."""
    return _read(config, model_type="llama4_text", prefix="model")
