"""DeepSeek-V2 and V3 (also R1 and Kimi K2): latent attention, shared experts, dense first layers."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, latent_attention, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn, MoeFfn
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm


def corrected_router(num_experts: int, hidden_size: int, prefix: str = "mlp.gate") -> tuple[Weight, ...]:
    """A router matrix and the fp32 bias per expert that balances load without a loss (DeepSeek-V3, 2.1.2)."""
    bias = Weight(f"{prefix}.e_score_correction_bias", (num_experts,), tp_ways=1, is_buffer=True, dtype="fp32")
    return (*linear(prefix, num_experts, hidden_size, tp_ways=1), bias)


def deepseek_moe(config: Config, *, corrected: bool, mlp_bias: bool = False) -> MoeFfn:
    """Narrow routed experts, and `n_shared_experts` of the same width fused into one MLP."""
    hidden_size, expert_size = config.size("hidden_size"), config.size("moe_intermediate_size")
    num_experts = config.size("n_routed_experts", "num_local_experts", "num_experts")
    num_shared = config.count("n_shared_experts", "num_shared_experts", default=0)
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    shared = gated_mlp("mlp.shared_experts", hidden_size, expert_size * num_shared, bias=mlp_bias) if num_shared else ()
    router = corrected_router(num_experts, hidden_size) if corrected else ()
    return gated_moe(hidden_size, expert_size, num_experts, top_k, router=router, shared=shared)


def first_dense_layers(config: Config) -> int:
    """How many layers come before the first mixture."""
    return config.count("first_k_dense_replace", default=0)


def mtp_layers(config: Config, mixer: Mixer, moe: MoeFfn) -> tuple[Layer, ...]:
    """The multi-token-prediction layers (DeepSeek-V3, 2.2): a whole layer behind a projection of [hidden; embedding].

    Embedding and output head are the main model's own, so they are not counted again.
    """
    hidden_size = config.size("hidden_size")
    first, number = config.num_layers("num_hidden_layers"), config.count("num_nextn_predict_layers", default=0)
    joins = (
        *linear("eh_proj", hidden_size, 2 * hidden_size),
        *norm("enorm", hidden_size),
        *norm("hnorm", hidden_size),
        *norm("shared_head.norm", hidden_size),
    )
    norms = pre_norms(hidden_size)
    return tuple(Layer(f"model.layers.{first + i}", mixer, moe, norms, joins) for i in range(number))


def deepseek_decoder(
    config: Config, mixer: Mixer, moe: MoeFfn, *, model_type: str, dense_bias: bool = False
) -> Architecture:
    """One kind of attention in every layer; dense layers first, mixtures after."""
    hidden_size, first_moe = config.size("hidden_size"), first_dense_layers(config)
    norms = pre_norms(hidden_size)

    def layer(index: int, path: str) -> Layer:
        if index >= first_moe:
            return Layer(path, mixer, moe, norms)
        dense = DenseFfn(gated_mlp("mlp", hidden_size, config.size("intermediate_size"), bias=dense_bias))
        return Layer(path, mixer, dense, norms)

    return decoder(config, layer, model_type=model_type, mtp=mtp_layers(config, mixer, moe))


def read_v2(config: Config) -> Architecture:
    """DeepSeek-V2, V2-Lite, V2.5: softmax router without correction bias."""
    mlp_bias = config.flag("mlp_bias", default=False)
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    moe = deepseek_moe(config, corrected=False, mlp_bias=mlp_bias)
    return deepseek_decoder(config, mixer, moe, model_type="deepseek_v2", dense_bias=mlp_bias)


def read_v3(config: Config) -> Architecture:
    """DeepSeek-V3, V3.1, R1: sigmoid router with correction bias, one MTP layer."""
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    return deepseek_decoder(config, mixer, deepseek_moe(config, corrected=True), model_type="deepseek_v3")
