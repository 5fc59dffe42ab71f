"""DeepSeek-V2, V3, V3.2 and those built like them (R1, Kimi K2, A.X-K1): latent attention, shared experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    latent_attention,
    pre_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import FeedForward, MoeFfn
from moe_cap.architecture.mixers import Indexer, LatentAttention, Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Selected
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm


def corrected_router(num_experts: int, hidden_size: int, prefix: str = "mlp.gate") -> tuple[Weight, ...]:
    """A router matrix and the fp32 bias per expert that balances load without a loss (DeepSeek-V3, 2.1.2)."""
    return (*linear(prefix, num_experts, hidden_size, tp_ways=1), correction_bias(f"{prefix}.", num_experts))


def correction_bias(prefix: str, num_experts: int, *, is_buffer: bool = True) -> Weight:
    """That bias alone; most models keep it as a buffer, so it counts as stored but not as a parameter."""
    return Weight(f"{prefix}e_score_correction_bias", (num_experts,), tp_ways=1, is_buffer=is_buffer, dtype="fp32")


def deepseek_moe(config: Config, *, corrected: bool = True, mlp_bias: bool = False) -> MoeFfn:
    """Narrow routed experts, and `n_shared_experts` of the same width fused into one MLP."""
    hidden_size, expert_size = config.size("hidden_size"), config.size("moe_intermediate_size")
    num_experts = config.size("n_routed_experts", "num_local_experts", "num_experts")
    num_shared = config.count("n_shared_experts", "num_shared_experts", default=0)
    top_k = top_k_of(config, num_experts, "num_experts_per_tok", "num_experts_per_token")
    shared = gated_mlp("mlp.shared_experts", hidden_size, expert_size * num_shared, bias=mlp_bias) if num_shared else ()
    router = corrected_router(num_experts, hidden_size) if corrected else ()
    return gated_moe(hidden_size, expert_size, num_experts, top_k, router=router, shared=shared)


def mtp_layers(config: Config, mixer: Mixer, moe: FeedForward, *, default: int = 0) -> tuple[Layer, ...]:
    """The multi-token-prediction layers (DeepSeek-V3, 2.2): a whole layer behind a projection of [hidden; embedding].

    Embedding and output head are the main model's own, so they are not counted again. Neither are hyper-connections:
    families that have them leave them out here (vllm/models/glm5next/common/mtp.py, hy_v4/nvidia/mtp.py).
    """
    hidden_size, first = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    number = config.count("num_nextn_predict_layers", "num_mtp_layers", default=default)
    joins = (
        *linear("eh_proj", hidden_size, 2 * hidden_size),
        *norm("enorm", hidden_size),
        *norm("hnorm", hidden_size),
        *norm("shared_head.norm", hidden_size),
    )
    norms = pre_norms(hidden_size)
    return tuple(Layer(f"model.layers.{first + i}", mixer, moe, norms, joins) for i in range(number))


def deepseek_decoder(
    config: Config,
    mixer_at: Callable[[int], Mixer],
    moe: MoeFfn,
    *,
    model_type: str,
    dense_bias: bool = False,
    first_dense: int = 0,
    prefix: str = "model",
    sparse_norms: tuple[Weight, ...] = (),
) -> Architecture:
    """Dense layers first, mixtures after; `sparse_norms` are further norms of the mixtures."""
    number = config.num_layers("num_hidden_layers")
    sparse = sparse_layers(config, number, first_dense=first_dense)
    norms = pre_norms(config.size("hidden_size"))
    dense = None if all(sparse) else dense_ffn(config, bias=dense_bias)

    def layer(index: int, path: str) -> Layer:
        if sparse[index] or dense is None:
            return Layer(path, mixer_at(index), moe, (*norms, *sparse_norms))
        return Layer(path, mixer_at(index), dense, norms)

    mtp = mtp_layers(config, mixer_at(number - 1), moe)
    return decoder(config, layer, model_type=model_type, mtp=mtp, prefix=prefix)


def read_v2(config: Config) -> Architecture:
    """DeepSeek-V2, V2-Lite, V2.5: softmax router without correction bias."""
    mlp_bias = config.flag("mlp_bias", default=False)
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    moe = deepseek_moe(config, corrected=False, mlp_bias=mlp_bias)
    return deepseek_decoder(config, lambda _: mixer, moe, model_type="deepseek_v2", dense_bias=mlp_bias)


def _read_latent(config: Config, model_type: str, prefix: str = "model") -> Architecture:
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config), model_type=model_type, prefix=prefix)


def read_v3(config: Config) -> Architecture:
    """DeepSeek-V3, V3.1, R1: sigmoid router with correction bias, one MTP layer."""
    return _read_latent(config, "deepseek_v3")


def read_kimi_k2(config: Config) -> Architecture:
    """Kimi K2: DeepSeek-V3 with more and narrower heads (Kimi K2 report, table 2)."""
    return _read_latent(config, "kimi_k2")


def read_kimi_k25(config: Config) -> Architecture:
    """Kimi K2.5 and later: the language model of a Kimi K2 inside a multimodal one; the vision tower is not counted."""
    return _read_latent(text_section(config), "kimi_k25", prefix="language_model.model")


def read_axk1(config: Config) -> Architecture:
    """A.X-K1: DeepSeek-V3 with a norm after each mixture."""
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    after = norm("mlp.post_mlp_layernorm", config.size("hidden_size"))
    moe = deepseek_moe(config)
    return deepseek_decoder(config, lambda _: mixer, moe, model_type="axk1", first_dense=1, sparse_norms=after)


def lightning_indexer(config: Config, prefix: str = f"{SELF_ATTENTION}.indexer") -> tuple[Indexer, tuple[Weight, ...]]:
    """The indexer of DeepSeek-V3.2: queries from the query latent, one key per token, a weight per head."""
    hidden_size, heads, width = config.size("hidden_size"), config.size("index_n_heads"), config.size("index_head_dim")
    weights = (
        *linear(f"{prefix}.wq_b", heads * width, config.size("q_lora_rank"), tp_ways=1),
        *linear(f"{prefix}.wk", width, hidden_size, tp_ways=1),
        *norm(f"{prefix}.k_norm", width, bias=True),
        *linear(f"{prefix}.weights_proj", heads, hidden_size, tp_ways=1),
    )
    return Indexer(heads, width), weights


def sparse_latent_attention(config: Config) -> LatentAttention:
    """DSA: latent attention to the `index_topk` positions that the indexer picks."""
    return latent_attention(
        config,
        bias=config.flag("attention_bias", default=False),
        indexer=lightning_indexer(config),
        reach=Selected(config.size("index_topk")),
    )


def read_v32(config: Config) -> Architecture:
    """DeepSeek-V3.2: V3 with an indexer in every layer."""
    mixer = sparse_latent_attention(config)
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config), model_type="deepseek_v32")


def without_indexer(mixer: LatentAttention) -> LatentAttention:
    """The same attention where a layer reuses the picks of an earlier layer's indexer."""
    weights = tuple(weight for weight in mixer.weights if ".indexer." not in weight.name)
    return replace(mixer, weights=weights, indexer=None)
