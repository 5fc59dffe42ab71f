"""Grok-1.

transformers 5 lacks it; the structure follows the published code (xai-org/grok-1, model.py) with the config keys of its
conversions: 64 layers, 8 experts of which 2 are used, 314 B parameters.
"""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, grouped_query_attention, head_dim_of, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, norm

MOE = "moe_block"


def read(config: Config) -> Architecture:
    """Four norms a layer; the output head is the embedding unless the config says otherwise."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    heads, kv_heads = config.size("num_attention_heads"), config.size("num_key_value_heads")
    mixer = grouped_query_attention(
        hidden_size, heads, kv_heads, head_dim_of(config, hidden_size, heads), prefix="attn"
    )
    num_experts = config.size("num_experts", "num_local_experts")
    expert = gated_mlp(f"{MOE}.experts.0", hidden_size, width, names=("linear", "linear_v", "linear_1"))
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    moe = gated_moe(hidden_size, width, num_experts, top_k, prefix=MOE, expert=expert)
    names = ("pre_attn_norm", "post_attn_norm", "pre_moe_norm", "post_moe_norm")
    norms = tuple(weight for name in names for weight in norm(name, hidden_size))
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="grok-1", tied=True)
