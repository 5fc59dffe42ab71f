"""Hunyuan 4: gated DeepSeek sparse attention with sinks, an indexer shared by layers, hyper-connections."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, dense_ffn, pre_norms, sparse_layers
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_moe, mtp_layers, sparse_latent_attention, without_indexer
from moe_cap.architecture.families.deepseek_v4 import hyper_head
from moe_cap.architecture.mixers import LatentAttention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear


def _attention(config: Config) -> LatentAttention:
    plain = sparse_latent_attention(config)
    heads, width = plain.num_heads, plain.num_heads * plain.v_head_dim
    extra = (
        *linear(f"{SELF_ATTENTION}.gate_proj", width, config.size("hidden_size"), tp_ways=heads),
        Weight(f"{SELF_ATTENTION}.sinks", (heads,), tp_ways=heads, dtype="fp32"),
    )
    return replace(plain, weights=(*plain.weights, *extra))


def _hyper_connections(config: Config) -> tuple[Weight, ...]:
    """DeepSeek-V4's without the mixing among streams: what each of `hc_mult` streams gives and takes."""
    streams, hidden_size = config.size("hc_mult", default=4), config.size("hidden_size")
    return tuple(
        Weight(f"{block}.{name}", shape, 1, dtype="fp32")
        for block in ("attn_hc", "ffn_hc")
        for name, shape in (("fn", (2 * streams, streams * hidden_size)), ("base", (2 * streams,)), ("scale", (2,)))
    )


def read(config: Config) -> Architecture:
    """Layer 0 and every fourth from 1 on run an indexer; MTP layers do, without hyper-connections.

    A checkpoint holds one MTP layer less than the config names, but for the last one (vllm/models/hy_v4/nvidia/mtp.py).
    """
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    default = tuple("full" if i == 0 or i % 4 == 1 else "shared" for i in range(number))
    indexers = config.items("indexer_types", kind=str, length=number) or default
    full = _attention(config)
    reuses, moe, dense = without_indexer(full), deepseek_moe(config), dense_ffn(config)
    sparse = sparse_layers(config, number, first_dense=1)
    norms, hyper = pre_norms(hidden_size), _hyper_connections(config)

    def layer(index: int, path: str) -> Layer:
        mixer = full if indexers[index] == "full" else reuses
        return Layer(path, mixer, moe if sparse[index] else dense, norms, hyper)

    named = mtp_layers(config, full, moe)
    return decoder(config, layer, model_type="hy_v4", other=hyper_head(config), mtp=named[:-1] or named)
