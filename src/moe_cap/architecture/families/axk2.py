"""A.X-K2: DeepSeek-V3.2 with an output gate fused into the query projection, and norms gated by a small MLP."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, dense_ffn, sparse_layers
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_moe, sparse_latent_attention
from moe_cap.architecture.mixers import LatentAttention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, norm


def _attention(config: Config) -> LatentAttention:
    """`q_gate_proj` makes query and gate from the query latent before and after its norm."""
    plain = sparse_latent_attention(config)
    width = plain.qk_nope_head_dim + plain.qk_rope_head_dim + plain.v_head_dim
    fused = linear(
        f"{SELF_ATTENTION}.q_gate_proj",
        plain.num_heads * width,
        2 * config.size("q_lora_rank"),
        tp_ways=plain.num_heads,
    )
    kept = tuple(weight for weight in plain.weights if not weight.name.endswith(".q_b_proj.weight"))
    return replace(plain, weights=(*fused, *kept))


def _gate(name: str, hidden_size: int, rank: int) -> tuple[Weight, ...]:
    """The low-rank gate on a norm's output."""
    return (*linear(f"{name}.mlp.fc1", rank, hidden_size, tp_ways=1), *linear(f"{name}.mlp.fc2", hidden_size, rank))


def read(config: Config) -> Architecture:
    """The norm before attention is gated in every layer, the one before the feed-forward in mixtures."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    rank = config.size("gated_norm_rank", default=16)
    mixer, moe, dense = _attention(config), deepseek_moe(config), dense_ffn(config)
    sparse = sparse_layers(config, number, first_dense=1)
    before, after = norm("input_layernorm.norm", hidden_size), norm("post_attention_layernorm.norm", hidden_size)
    ungated = norm("post_attention_layernorm", hidden_size)
    gate = _gate("input_layernorm", hidden_size, rank)
    gates = (*gate, *_gate("post_attention_layernorm", hidden_size, rank))

    def layer(index: int, path: str) -> Layer:
        if sparse[index]:
            return Layer(path, mixer, moe, (*before, *after), gates)
        return Layer(path, mixer, dense, (*before, *ungated), gate)

    return decoder(config, layer, model_type="axk2")
