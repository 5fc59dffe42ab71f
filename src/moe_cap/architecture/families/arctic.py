"""Snowflake Arctic: a dense residual MLP beside a mixture of 128 experts.

transformers 5 lacks it; the structure follows the model's published code (modeling_arctic.py) and its sizes: 480 B
parameters, 17 B active.
"""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, gqa_from, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import gated_mlp, norm

MOE, NAMES = "block_sparse_moe", ("w1", "w3", "w2")


def read(config: Config) -> Architecture:
    """The residual MLP is as wide as the model; every `moe_layer_frequency`-th layer is a mixture."""
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts, every = config.size("num_local_experts"), config.size("moe_layer_frequency", default=1)
    residual = config.flag("parallel_attn_mlp_res", default=True)
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        prefix=MOE,
        expert=gated_mlp(f"{MOE}.experts.0", hidden_size, width, names=NAMES),
        dense=gated_mlp("residual_mlp", hidden_size, hidden_size, names=NAMES) if residual else (),
    )
    dense = DenseFfn(gated_mlp(f"{MOE}.mlp", hidden_size, width, names=NAMES))
    mixer, plain = gqa_from(config), pre_norms(hidden_size)
    doubled = (*plain, *norm("residual_layernorm", hidden_size)) if residual else plain

    def layer(index: int, path: str) -> Layer:
        sparse = (index + 1) % every == 0
        return Layer(path, mixer, moe if sparse else dense, doubled if sparse else plain)

    return decoder(config, layer, model_type="arctic")
