"""LongCat-Flash: two attentions and two dense MLPs a block, a mixture with zero experts beside them."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, latent_attention, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm


def read(config: Config) -> Architecture:
    """A block of the config becomes two layers here: the first holds the mixture, the second only its dense half."""
    hidden_size, blocks = config.size("hidden_size"), config.num_layers("num_layers", "num_hidden_layers")
    dense_size, expert_size = config.size("ffn_hidden_size"), config.size("expert_ffn_hidden_size")
    num_experts, zeros = config.size("n_routed_experts"), config.count("zero_expert_num", default=0)
    choices, bias = num_experts + zeros, config.flag("attention_bias", default=False)
    router = (
        *linear(
            "mlp.router.classifier", choices, hidden_size, bias=config.flag("router_bias", default=False), tp_ways=1
        ),
        Weight("mlp.router.e_score_correction_bias", (choices,), 1, is_buffer=True, dtype="fp32"),
    )
    moe = gated_moe(
        hidden_size,
        expert_size,
        num_experts,
        top_k_of(config, choices, "moe_topk"),
        router=router,
        dense=gated_mlp("mlps.0", hidden_size, dense_size),
        zero_experts=zeros,
    )
    mixers = [latent_attention(config, bias=bias, prefix=f"self_attn.{half}") for half in (0, 1)]
    norms = [
        (*norm(f"input_layernorm.{half}", hidden_size), *norm(f"post_attention_layernorm.{half}", hidden_size))
        for half in (0, 1)
    ]
    ffns = (moe, DenseFfn(gated_mlp("mlps.1", hidden_size, dense_size)))

    def layer(index: int, _: str) -> Layer:
        block, half = divmod(index, 2)
        return Layer(f"model.layers.{block}", mixers[half], ffns[half], norms[half])

    return decoder(config, layer, model_type="longcat_flash", num_layers=2 * blocks)
