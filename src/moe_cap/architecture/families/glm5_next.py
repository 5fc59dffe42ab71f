"""GLM-5.3 Flash: Kimi's delta attention in three layers of four, pooled sparse attention, hyper-connections."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    latent_attention,
    pre_norms,
    sparse_layers,
    text_section,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_moe, lightning_indexer, mtp_layers, without_indexer
from moe_cap.architecture.families.deepseek_v4 import hyper_connections
from moe_cap.architecture.families.glm import indexer_types
from moe_cap.architecture.families.kimi_linear import delta_attention, delta_gates, kda_sizes
from moe_cap.architecture.mixers import LatentAttention, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import Weight

LINEAR, INDEXED, FULL = "linear_attention", "indexed_attention", "full_attention"


def _attention(config: Config) -> LatentAttention:
    """The indexer picks whole pools of `index_kpool` positions, and always the unfinished last one."""
    pool, prefix = config.size("index_kpool", default=16), f"{SELF_ATTENTION}.indexer"
    plain, weights = lightning_indexer(config)
    pooling = (
        Weight(f"{prefix}.index_kpool_compress_ape", (pool, plain.head_dim), 1, elementwise=True),
        Weight(f"{prefix}.index_kpool_compress_gate", (plain.head_dim, config.size("hidden_size")), 1),
    )
    bias = config.flag("attention_bias", default=False)
    reach = Selected(config.size("index_topk") + pool - 1)
    return latent_attention(config, bias=bias, indexer=(replace(plain, pool=pool), (*weights, *pooling)), reach=reach)


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted.

    MTP layers always run an indexer and have no hyper-connections (vllm/models/glm5next/common/mtp.py).
    """
    text = text_section(config)
    hidden_size, number = text.size("hidden_size"), text.num_layers("num_hidden_layers")
    default = [LINEAR if i % 4 != 3 else INDEXED for i in range(number)]
    kinds = text.layer_types(number, (LINEAR, INDEXED, FULL), default=default)
    heads, head_dim, kernel = kda_sizes(text, default_heads=64)
    gates = delta_gates(hidden_size, heads, head_dim)
    delta = delta_attention(hidden_size, heads, head_dim, kernel, gates)
    own, indexers = _attention(text), indexer_types(text)
    reuses = without_indexer(own)

    def mixer(index: int) -> Mixer:
        if kinds[index] == LINEAR:
            return delta
        return own if indexers[index] == "full" else reuses

    moe, dense, sparse = deepseek_moe(text), dense_ffn(text), sparse_layers(text, number, first_dense=3)
    norms, hyper = pre_norms(hidden_size), hyper_connections(text)
    return decoder(
        text,
        lambda i, path: Layer(path, mixer(i), moe if sparse[i] else dense, norms, hyper),
        model_type="glm5_next",
        prefix="model.language_model",
        mtp=mtp_layers(text, own, moe),
    )
