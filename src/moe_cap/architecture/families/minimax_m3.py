"""MiniMax-M3: attention to blocks that an indexer picks, shared experts, dense first layers."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    gated_moe,
    gqa_from,
    pre_norms,
    qk_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.mixers import Attention, Indexer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import gated_mlp, linear, norm

MOE = "block_sparse_moe"


def _sparse_attention(config: Config, full: Attention) -> Attention:
    """The query sees `topk_blocks` blocks of keys; one index key per token, as many index heads as KV heads."""
    section = config.section("sparse_attention_config") if config.has("sparse_attention_config") else config
    heads = section.size("sparse_num_index_heads", "index_n_heads")
    width = section.size("sparse_index_dim", "index_head_dim")
    picked = section.size("sparse_topk_blocks", "index_topk_blocks")
    block = section.size("sparse_block_size", "index_block_size")
    hidden_size, prefix = config.size("hidden_size"), f"{SELF_ATTENTION}.indexer"
    weights = (
        *linear(f"{prefix}.q_proj", heads * width, hidden_size, tp_ways=heads),
        *linear(f"{prefix}.k_proj", width, hidden_size, tp_ways=1),
        *norm(f"{prefix}.q_norm", width),
        *norm(f"{prefix}.k_norm", width),
    )
    return replace(
        full,
        weights=(*full.weights, *weights),
        reach=Selected(picked * block),
        indexer=Indexer(heads, width, sums_heads=False),
    )


def _sparse_flags(config: Config, number: int) -> tuple[bool, ...]:
    """Which layers pick blocks: `sparse_attention_freq`, or `layer_types` of the converted config."""
    if config.has("sparse_attention_config"):
        freq = config.section("sparse_attention_config").items("sparse_attention_freq", kind=int, length=number)
        return tuple(map(bool, freq)) if freq is not None else (True,) * number
    kinds = config.items("layer_types", kind=str, length=number)
    return tuple(kind == "minimax_m3_sparse" for kind in kinds) if kinds else (False,) * number


def _read(config: Config, *, model_type: str, prefix: str, tied: bool = False) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    full = gqa_from(config, extra=qk_norms(config.size("head_dim")))
    picks = _sparse_flags(config, number)
    sparse = _sparse_attention(config, full) if any(picks) else full
    num_experts, width = config.size("num_local_experts"), config.size("intermediate_size")
    shared = config.count("shared_intermediate_size", default=0) * config.size("n_shared_experts", default=1)
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        prefix=MOE,
        router=(*linear(f"{MOE}.gate", num_experts, hidden_size, tp_ways=1), correction_bias(f"{MOE}.", num_experts)),
        expert=gated_mlp(f"{MOE}.experts.0", hidden_size, width, names=("w1", "w3", "w2")),
        shared=gated_mlp(f"{MOE}.shared_experts", hidden_size, shared) if shared else (),
    )
    has_mixture = sparse_layers(config, number)
    dense = DenseFfn(gated_mlp("mlp", hidden_size, config.size("dense_intermediate_size", "intermediate_size")))
    norms = pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        mixer = sparse if picks[index] else full
        return Layer(path, mixer, moe if has_mixture[index] else dense, norms)

    return decoder(config, layer, model_type=model_type, prefix=prefix, tied=tied)


def read(config: Config) -> Architecture:
    """The language model on its own (`minimax_m3`, `minimax_m3_vl_text`). The weights of its MTP are not published."""
    return _read(config, model_type=config.word("model_type"), prefix="model")


def read_vl(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted."""
    return _read(text_section(config), model_type="minimax_m3_vl", prefix="language_model.model")
