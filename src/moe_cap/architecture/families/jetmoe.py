"""JetMoE: a mixture of MLPs and a mixture of attention heads behind one kind of router each."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, vector


def read(config: Config) -> Architecture:
    """The attention experts (query and output projections) are counted as attention, all of them: no trace has them."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts = config.size("num_local_experts", "num_experts")
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    kv_heads, head_dim = config.size("num_key_value_heads"), config.size("kv_channels", default=128)
    inner, prefix = kv_heads * head_dim, "self_attention.experts"
    mixer = Attention(
        (
            *vector(f"{prefix}.bias", hidden_size),
            Weight(f"{prefix}.input_linear.weight", (num_experts, inner, hidden_size), kv_heads),
            Weight(f"{prefix}.output_linear.weight", (num_experts, hidden_size, inner), kv_heads),
            *linear(f"{prefix}.router.layer", num_experts, hidden_size, tp_ways=1),
            *linear("self_attention.kv_proj", 2 * inner, hidden_size, tp_ways=kv_heads),
        ),
        kv_heads * top_k,
        kv_heads,
        head_dim,
        head_dim,
    )
    moe = MoeFfn(
        num_experts=num_experts,
        top_k=top_k,
        expert=(
            Weight("mlp.input_linear.weight", (2 * width, hidden_size)),
            Weight("mlp.output_linear.weight", (hidden_size, width)),
        ),
        router=linear("mlp.router.layer", num_experts, hidden_size, tp_ways=1),
        dense=vector("mlp.bias", hidden_size),
    )
    norms = pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="jetmoe", tied=True)
