"""Qwen4-Exp: gated delta networks and indexed attention on several residual streams, and n-grams in hash tables."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, text_section
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.qwen2_moe import shared_expert_moe
from moe_cap.architecture.families.qwen3_next import gated_attention, qwen3_5_delta_net
from moe_cap.architecture.mixers import Attention, Indexer, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.primes import primes_from
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import Weight, linear, norm

LINEAR, INDEXED, FULL = "linear_attention", "indexed_attention", "full_attention"
MAX_NGRAM_HEADS = 4096


def _indexed_attention(config: Config) -> Attention:
    """Whole blocks of positions are picked by the mean of their keys, and always the unfinished last one."""
    heads, head_dim = config.size("indexer_n_heads"), config.size("indexer_head_dim")
    block, prefix = config.size("indexer_compress_ratio"), f"{SELF_ATTENTION}.indexer"
    plain = gated_attention(config)
    weights = (
        *plain.weights,
        *linear(f"{prefix}.index_qk_proj", (heads + 1) * head_dim, config.size("hidden_size"), tp_ways=1),
        *norm(f"{prefix}.q_layernorm", head_dim),
        *norm(f"{prefix}.k_layernorm", head_dim),
    )
    indexer = Indexer(heads, head_dim, sums_heads=False, pool=block)
    return replace(plain, weights=weights, indexer=indexer, reach=Selected(config.size("indexer_budget") + block - 1))


def _streams(config: Config) -> int:
    return config.size("hc_count", default=4) * config.size("hidden_size")


def _residual(config: Config, name: str) -> tuple[Weight, ...]:
    """Mixes all streams into one through a low rank; what a block gives back to each, too, outside the last one."""
    width, rank = _streams(config), config.size("hc_lowrank", default=320)
    return (
        *linear(f"{name}.input_mix_weight_down", rank, width),
        *linear(f"{name}.input_mix_weight_up", width, rank),
    )


def _ngrams(config: Config, index: int) -> tuple[Weight, ...]:
    """The `index`-th layer that looks n-grams up: a table per head, as long as the next prime that none has yet."""
    orders, per_order = config.size("ngram_size", default=3) - 1, config.size("heads_per_ngram", default=8)
    heads, base = orders * per_order, config.size("ngram_vocab_size_base", default=20_000_000)
    embed_dim = config.size("ple_embed_dim", default=config.size("hidden_size"))
    if not heads or embed_dim % heads or heads * (index + 1) > MAX_NGRAM_HEADS:
        raise config.complain("heads_per_ngram", f"{heads} heads do not share ple_embed_dim {embed_dim}")
    rows = sum(islice(primes_from(base), index * heads, (index + 1) * heads))
    multiple = config.size("make_ngram_vocab_size_divisible_by", default=128)
    table, prefix = -(-rows // multiple) * multiple, "ple.ple_embedding"
    width, hidden_size = _streams(config), config.size("hidden_size")
    kernel = config.size("ple_conv_kernel_size", default=4)
    return (
        Weight(f"{prefix}.ngram_embedding.weight", (table, embed_dim // heads), lookup=heads),
        *(
            Weight(f"{prefix}.{name}", (size,), 1, is_buffer=True, dtype="int64")
            for name, size in (("layer_multipliers", orders + 1), ("ngram_heads_vocab_sizes", heads),
                               ("ngram_heads_offsets", heads))
        ),
        *linear("ple.key_proj", width, embed_dim),
        *linear("ple.value_proj", hidden_size, embed_dim),
        Weight("ple.conv1d.weight", (width, 1, kernel)),
    )  # fmt: skip


def _read(config: Config, *, model_type: str, prefix: str, tied: bool = False) -> Architecture:
    number, width = config.num_layers("num_hidden_layers"), _streams(config)
    every = config.size("full_attention_interval", default=4)
    default = [LINEAR if (i + 1) % every else INDEXED for i in range(number)]
    kinds = config.layer_types(number, (LINEAR, INDEXED, FULL), default=default)
    looked_up = sorted(set(config.items("ple_layer_ids", kind=int) or ()))
    if any(not 1 <= layer <= number or kinds[layer - 1] != LINEAR for layer in looked_up):
        raise config.complain("ple_layer_ids", f"{looked_up}: expected layers of linear attention, counted from 1")
    delta, moe = qwen3_5_delta_net(config), shared_expert_moe(config)
    mixers: dict[str, Mixer] = {LINEAR: delta, INDEXED: _indexed_attention(config) if set(kinds) - {LINEAR} else delta}
    order = config.size("ngram_size", default=3)
    window = (config.size("ple_conv_kernel_size", default=4) - 1) * order * width + order - 1
    after_lookup = replace(delta, window_elements=delta.window_elements + window)
    blocks = ("attn_hyper_connection", "mlp_hyper_connection")
    gates = tuple(
        weight
        for block in blocks
        for weight in (
            *_residual(config, block),
            *linear(f"{block}.block_inject_weight", config.size("hc_count", default=4), width),
        )
    )
    norms = tuple(weight for block in blocks for weight in norm(f"{block}.hc_norm", width))
    ple_norms = tuple(weight for name in ("key", "query", "conv") for weight in norm(f"ple.norm_{name}", width))

    def layer(index: int, path: str) -> Layer:
        if index + 1 not in looked_up:
            return Layer(path, mixers[LINEAR if kinds[index] == LINEAR else INDEXED], moe, norms, gates)
        tables = _ngrams(config, looked_up.index(index + 1))
        return Layer(path, after_lookup, moe, (*norms, *ple_norms), (*gates, *tables))

    last = f"{prefix}.hyper_connection_mixer"
    merged = norm(f"{last}.hc_norm", width)
    return decoder(
        config, layer, model_type=model_type, prefix=prefix, tied=tied, norms=merged, other=_residual(config, last)
    )


def read_text(config: Config) -> Architecture:
    """The language model on its own.

    Besides its windows a layer that looks n-grams up keeps the ids of the last `ngram_size - 1` tokens.
    """
    return _read(config, model_type="qwen4_exp_text", prefix="model")


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted."""
    tied = config.flag("tie_word_embeddings", default=False)
    return _read(text_section(config), model_type="qwen4_exp", prefix="model.language_model", tied=tied)
