"""Aria's language model: Llama with a mixture."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, gqa_from, pre_norms, text_section, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear


def _read(config: Config, *, model_type: str, prefix: str) -> Architecture:
    hidden_size, width = config.size("hidden_size"), config.size("intermediate_size")
    num_experts, num_shared = config.size("moe_num_experts"), config.count("moe_num_shared_experts", default=2)
    mlp_bias = config.flag("mlp_bias", default=False)
    moe = gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k_of(config, num_experts, "moe_topk"),
        router=linear("mlp.router", num_experts, hidden_size, tp_ways=1),
        expert=(
            Weight("mlp.experts.fc1.weight", (2 * width, hidden_size)),
            Weight("mlp.experts.fc2.weight", (hidden_size, width)),
        ),
        shared=gated_mlp("mlp.shared_experts", hidden_size, width * num_shared, bias=mlp_bias) if num_shared else (),
    )
    bias = config.flag("attention_bias", default=False)
    mixer, norms = gqa_from(config, qkv_bias=bias, o_bias=bias), pre_norms(hidden_size)
    return decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type=model_type, prefix=prefix)


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; the vision tower is not counted."""
    return _read(text_section(config), model_type="aria", prefix="model.language_model")


def read_text(config: Config) -> Architecture:
    """The language model on its own."""
    return _read(config, model_type="aria_text", prefix="model")
