"""gpt-oss (20b, 120b): attention sinks, alternating windows, experts with biases."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gqa_from, pre_norms, top_k_of, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear


def _expert(hidden_size: int, expert_size: int) -> tuple[Weight, ...]:
    """Gate and up in one matrix. The checkpoint stacks all experts of a layer, so no id is in the name."""
    prefix = "mlp.experts"
    return (
        Weight(f"{prefix}.gate_up_proj", (2 * expert_size, hidden_size)),
        Weight(f"{prefix}.gate_up_proj_bias", (2 * expert_size,)),
        Weight(f"{prefix}.down_proj", (hidden_size, expert_size)),
        Weight(f"{prefix}.down_proj_bias", (hidden_size,)),
    )


def mixture(config: Config) -> MoeFfn:
    """Experts and router with biases."""
    hidden_size, num_experts = config.size("hidden_size"), config.size("num_local_experts", "num_experts")
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k_of(config, num_experts, "num_experts_per_tok", "experts_per_token"),
        expert=_expert(hidden_size, config.size("intermediate_size")),
        router=linear("mlp.router", num_experts, hidden_size, bias=True, tp_ways=1),
    )


def read(config: Config) -> Architecture:
    """Every layer is a mixture; windows on every other layer unless `layer_types` says otherwise."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    heads, moe = config.size("num_attention_heads"), mixture(config)
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(number)]
    kinds = config.layer_types(number, ("full_attention", "sliding_attention"), default=default)
    bias = config.flag("attention_bias", default=True)
    sinks = (Weight(f"{SELF_ATTENTION}.sinks", (heads,), tp_ways=heads),)
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=sinks, reach=window_of(config, kind))
        for kind in set(kinds)
    }
    norms = pre_norms(hidden_size)
    return decoder(config, lambda i, path: Layer(path, mixers[kinds[i]], moe, norms), model_type="gpt_oss")
