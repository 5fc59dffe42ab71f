"""DBRX."""

from __future__ import annotations

from moe_cap.architecture.blocks import top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, vector

ATTENTION, FFN = "norm_attn_norm.attn", "ffn"


def _mixture(config: Config, hidden_size: int) -> MoeFfn:
    """Experts stacked in three tensors, rows of one expert after those of another."""
    ffn = config.section("ffn_config")
    num_experts, width = ffn.size("moe_num_experts"), ffn.size("ffn_hidden_size")
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(ffn, num_experts, "moe_top_k"),
        expert=tuple(Weight(f"{FFN}.experts.mlp.{name}", (width, hidden_size)) for name in ("w1", "v1", "w2")),
        router=linear(f"{FFN}.router.layer", num_experts, hidden_size, tp_ways=1),
    )


def read(config: Config) -> Architecture:
    """Its config nests attention and mixture, and its norms have no bias."""
    hidden_size, vocab_size = config.size("d_model"), config.size("vocab_size")
    heads, kv_heads = config.size("n_heads"), config.section("attn_config").size("kv_n_heads", default=1)
    head_dim = hidden_size // heads
    mixer = Attention(
        (
            *linear(f"{ATTENTION}.Wqkv", hidden_size + 2 * kv_heads * head_dim, hidden_size, tp_ways=kv_heads),
            *linear(f"{ATTENTION}.out_proj", hidden_size, hidden_size, tp_ways=heads),
        ),
        heads,
        kv_heads,
        head_dim,
        head_dim,
    )
    moe = _mixture(config, hidden_size)
    norms = (
        *vector("norm_attn_norm.norm_1.weight", hidden_size),
        *vector("norm_attn_norm.norm_2.weight", hidden_size),
    )
    return Architecture(
        model_type="dbrx",
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=tuple(Layer(f"transformer.blocks.{i}", mixer, moe, norms) for i in range(config.num_layers("n_layers"))),
        embedding=(Weight("transformer.wte.weight", (vocab_size, hidden_size), lookup=1),),
        lm_head=linear("lm_head", vocab_size, hidden_size),
        norms=vector("transformer.norm_f.weight", hidden_size),
        tied=config.flag("tie_word_embeddings", default=False),
    )
