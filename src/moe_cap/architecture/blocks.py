"""Bricks that families share: the usual attention, the usual mixture, the usual decoder around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn, MoeFfn
from moe_cap.architecture.mixers import Attention, Indexer, LatentAttention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Reach, Window
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm

SELF_ATTENTION = "self_attn"


def head_dim_of(config: Config, hidden_size: int, num_heads: int) -> int:
    """`head_dim`, or hidden_size / num_attention_heads where the config leaves it out."""
    if config.has("head_dim"):
        return config.size("head_dim")
    if hidden_size % num_heads:
        raise config.complain("num_attention_heads", f"{num_heads} does not divide hidden_size {hidden_size}")
    return hidden_size // num_heads


def grouped_query_attention(
    hidden_size: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    *,
    v_head_dim: int | None = None,
    qkv_bias: bool = False,
    o_bias: bool = False,
    extra: Sequence[Weight] = (),
    reach: Reach | None = None,
    prefix: str = SELF_ATTENTION,
) -> Attention:
    """MHA, GQA or MQA with separate q, k, v and o projections; `extra` are its norms and sinks."""
    value_dim = head_dim if v_head_dim is None else v_head_dim
    weights = (
        *linear(f"{prefix}.q_proj", num_heads * head_dim, hidden_size, bias=qkv_bias, tp_ways=num_heads),
        *linear(f"{prefix}.k_proj", num_kv_heads * head_dim, hidden_size, bias=qkv_bias, tp_ways=num_kv_heads),
        *linear(f"{prefix}.v_proj", num_kv_heads * value_dim, hidden_size, bias=qkv_bias, tp_ways=num_kv_heads),
        *linear(f"{prefix}.o_proj", hidden_size, num_heads * value_dim, bias=o_bias, tp_ways=num_heads),
        *extra,
    )
    return Attention(weights, num_heads, num_kv_heads, head_dim, value_dim, reach or Full())


def gqa_from(
    config: Config,
    *,
    qkv_bias: bool = False,
    o_bias: bool = False,
    extra: Sequence[Weight] = (),
    reach: Reach | None = None,
) -> Attention:
    """The same, its sizes under the usual keys; `num_key_value_heads` defaults to MHA."""
    hidden_size, num_heads = config.size("hidden_size"), config.size("num_attention_heads")
    num_kv_heads = config.size("num_key_value_heads", default=num_heads)
    if num_heads % num_kv_heads:
        raise config.complain("num_key_value_heads", f"{num_kv_heads} does not divide num_attention_heads {num_heads}")
    head_dim = head_dim_of(config, hidden_size, num_heads)
    return grouped_query_attention(
        hidden_size, num_heads, num_kv_heads, head_dim, qkv_bias=qkv_bias, o_bias=o_bias, extra=extra, reach=reach
    )


def qk_norms(head_dim: int, prefix: str = SELF_ATTENTION) -> tuple[Weight, ...]:
    """Norms of query and key over the width of a head."""
    return (*norm(f"{prefix}.q_norm", head_dim), *norm(f"{prefix}.k_norm", head_dim))


def latent_attention(
    config: Config, *, bias: bool = False, indexer: tuple[Indexer, tuple[Weight, ...]] | None = None,
    reach: Reach | None = None, prefix: str = SELF_ATTENTION,
) -> LatentAttention:  # fmt: skip
    """MLA from its ranks; the query is projected directly where `q_lora_rank` is absent (DeepSeek-V2-Lite)."""
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    nope, rope = config.size("qk_nope_head_dim"), config.count("qk_rope_head_dim")
    value, kv_rank = config.size("v_head_dim"), config.size("kv_lora_rank")
    if config.count("q_lora_rank", default=0):
        q_rank = config.size("q_lora_rank")
        query = (
            *linear(f"{prefix}.q_a_proj", q_rank, hidden, bias=bias, tp_ways=1),
            *norm(f"{prefix}.q_a_layernorm", q_rank),
            *linear(f"{prefix}.q_b_proj", heads * (nope + rope), q_rank, tp_ways=heads),
        )
    else:
        query = linear(f"{prefix}.q_proj", heads * (nope + rope), hidden, tp_ways=heads)
    weights = (
        *query,
        *linear(f"{prefix}.kv_a_proj_with_mqa", kv_rank + rope, hidden, bias=bias, tp_ways=1),
        *norm(f"{prefix}.kv_a_layernorm", kv_rank),
        *linear(f"{prefix}.kv_b_proj", heads * (nope + value), kv_rank, tp_ways=heads),
        *linear(f"{prefix}.o_proj", hidden, heads * value, bias=bias, tp_ways=heads),
        *(indexer[1] if indexer else ()),
    )
    return LatentAttention(weights, heads, kv_rank, nope, rope, value, reach or Full(), indexer[0] if indexer else None)


def gated_moe(
    hidden_size: int,
    expert_size: int,
    num_experts: int,
    top_k: int,
    *,
    prefix: str = "mlp",
    router: tuple[Weight, ...] = (),
    expert: tuple[Weight, ...] = (),
    shared: tuple[Weight, ...] = (),
    dense: tuple[Weight, ...] = (),
    zero_experts: int = 0,
) -> MoeFfn:
    """A mixture of gated MLPs behind one router matrix, unless `router` or `expert` say otherwise."""
    return MoeFfn(
        num_experts=num_experts,
        top_k=top_k,
        expert=expert or gated_mlp(f"{prefix}.experts.0", hidden_size, expert_size),
        router=router or linear(f"{prefix}.gate", num_experts + zero_experts, hidden_size, tp_ways=1),
        shared=shared,
        dense=dense,
        zero_experts=zero_experts,
    )


def top_k_of(config: Config, num_experts: int, *keys: str, default: int | None = None) -> int:
    """Experts per token, no more than there are."""
    top_k = config.size(*keys, default=default)
    if top_k > num_experts:
        raise config.complain(keys[0], f"{top_k} experts per token of {num_experts} experts")
    return top_k


def pre_norms(hidden_size: int, *, bias: bool = False) -> tuple[Weight, ...]:
    """The two norms of a pre-norm layer."""
    return (
        *norm("input_layernorm", hidden_size, bias=bias),
        *norm("post_attention_layernorm", hidden_size, bias=bias),
    )


def decoder(
    config: Config,
    layer_at: Callable[[int, str], Layer],
    *,
    model_type: str,
    tied: bool = False,
    num_layers: int | None = None,
    norms: tuple[Weight, ...] | None = None,
    other: tuple[Weight, ...] = (),
    mtp: tuple[Layer, ...] = (),
    prefix: str = "model",
    lm_head_bias: bool = False,
) -> Architecture:
    """The usual decoder: embedding, layers under `<prefix>.layers`, a final norm, an output projection.

    `layer_at` builds the layer of an index and checkpoint path; `tied` is what `tie_word_embeddings` means where the
    config leaves it out.
    """
    hidden_size, vocab_size = config.size("hidden_size"), config.size("vocab_size")
    number = config.num_layers("num_hidden_layers") if num_layers is None else num_layers
    return Architecture(
        model_type=model_type,
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=tuple(layer_at(index, f"{prefix}.layers.{index}") for index in range(number)),
        embedding=(Weight(f"{prefix}.embed_tokens.weight", (vocab_size, hidden_size), lookup=1),),
        lm_head=linear("lm_head", vocab_size, hidden_size, bias=lm_head_bias),
        norms=norm(f"{prefix}.norm", hidden_size) if norms is None else norms,
        tied=config.flag("tie_word_embeddings", default=tied),
        other=other,
        mtp=mtp,
    )


def window_of(config: Config, kind: str) -> Reach:
    """`sliding_attention` looks back `sliding_window` tokens, `full_attention` all of them."""
    return Window(config.size("sliding_window")) if kind == "sliding_attention" else Full()


def sparse_layers(config: Config, number: int, *, first_dense: int = 0) -> tuple[bool, ...]:
    """Which layers are mixtures: `mlp_layer_types`, a `moe_layer_freq` list, or all after `first_k_dense_replace`."""
    kinds = config.items("mlp_layer_types", kind=str, length=number)
    if kinds is not None:
        return tuple(kind == "sparse" for kind in kinds)
    if config.is_list("moe_layer_freq"):
        return tuple(bool(flag) for flag in config.items("moe_layer_freq", kind=int, length=number) or ())
    first = config.count("first_k_dense_replace", default=first_dense)
    return tuple(index >= first for index in range(number))


def dense_ffn(config: Config, *keys: str, bias: bool = False, prefix: str = "mlp") -> DenseFfn:
    """A gated MLP as wide as the first of `keys` says, `intermediate_size` without any."""
    width = config.size(*(keys or ("intermediate_size",)))
    return DenseFfn(gated_mlp(prefix, config.size("hidden_size"), width, bias=bias))


def text_section(config: Config) -> Config:
    """The language model's part of a multimodal config."""
    return config.section("text_config", "language_config", "llm_config")
