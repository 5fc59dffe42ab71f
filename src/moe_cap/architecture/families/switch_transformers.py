"""Switch Transformers: T5 with one expert per token in every few layers, encoder and decoder."""

from __future__ import annotations

from collections.abc import Callable

from moe_cap.architecture.config import Config
from moe_cap.architecture.encoder_decoder import DecoderAttention, EncoderAttention, source_layer
from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, norm


def read(config: Config) -> Architecture:
    """Every token is counted as sent to its expert; beyond `expert_capacity` tokens of a sequence one is skipped.

    Raises:
        ConfigError: separate embeddings, of which no published checkpoint is known.
    """
    if not config.flag("tie_word_embeddings", default=True):
        raise config.complain("tie_word_embeddings", "false: expected true, one table for encoder, decoder and output")
    hidden_size, heads, head_dim = config.size("d_model"), config.size("num_heads"), config.size("d_kv")
    encoders = config.num_layers("num_layers")
    decoders = config.num_layers("num_decoder_layers") if config.has("num_decoder_layers") else encoders
    buckets = config.size("relative_attention_num_buckets", default=32)
    bias = Weight("layer.0.SelfAttention.relative_attention_bias.weight", (buckets, heads), heads, elementwise=True)
    own, cross = "layer.0.SelfAttention", "layer.1.EncDecAttention"
    inner = heads * head_dim

    def projections(name: str, letters: str) -> tuple[Weight, ...]:
        into = (w for x in letters if x != "o" for w in linear(f"{name}.{x}", inner, hidden_size, tp_ways=heads))
        return (*into, *(linear(f"{name}.o", hidden_size, inner, tp_ways=heads) if "o" in letters else ()))

    def encoder_layer(index: int) -> Layer:
        weights = (*projections(own, "qkvo"), *((bias,) if index == 0 else ()))
        mixer = EncoderAttention(weights, heads, head_dim)
        return Layer(f"encoder.block.{index}", mixer, encoder_ffn(index), _norms(hidden_size, 2))

    def decoder_layer(index: int) -> Layer:
        weights = (*projections(own, "qkvo"), *((bias,) if index == 0 else ()), *projections(cross, "qo"))
        mixer = DecoderAttention(weights, heads, heads, head_dim, head_dim)
        return Layer(f"decoder.block.{index}", mixer, decoder_ffn(index), _norms(hidden_size, 3))

    encoder_ffn = _feed_forwards(config, "layer.1.mlp", encoders, "num_sparse_encoder_layers")
    decoder_ffn = _feed_forwards(config, "layer.2.mlp", decoders, "num_sparse_decoder_layers")
    table = (Weight("shared.weight", (config.size("vocab_size"), hidden_size), lookup=1),)
    sources = (source_layer(f"decoder.block.{i}", projections(cross, "kv"), heads, head_dim) for i in range(decoders))
    encoder = Architecture(
        model_type="switch_transformers",
        hidden_size=hidden_size,
        vocab_size=config.size("vocab_size"),
        layers=(*map(encoder_layer, range(encoders)), *sources),
        embedding=table,
        lm_head=(),
        norms=norm("encoder.final_layer_norm", hidden_size),
    )
    return Architecture(
        model_type="switch_transformers",
        hidden_size=hidden_size,
        vocab_size=config.size("vocab_size"),
        layers=tuple(map(decoder_layer, range(decoders))),
        embedding=table,
        lm_head=linear("lm_head", config.size("vocab_size"), hidden_size),
        norms=norm("decoder.final_layer_norm", hidden_size),
        tied=True,
        encoder=encoder,
    )


def _norms(hidden_size: int, number: int) -> tuple[Weight, ...]:
    return tuple(weight for i in range(number) for weight in norm(f"layer.{i}.layer_norm", hidden_size))


def _feed_forwards(config: Config, prefix: str, number: int, key: str) -> Callable[[int], FeedForward]:
    """The mixture in every `number // sparse`-th layer from the second on, in all where that is 1, else one MLP."""
    hidden_size, width, experts = config.size("d_model"), config.size("d_ff"), config.size("num_experts")
    sparse = config.count(key, default=3)
    stride = number // sparse if sparse else number

    def mlp(name: str) -> tuple[Weight, ...]:
        return (*linear(f"{name}.wi", width, hidden_size), *linear(f"{name}.wo", hidden_size, width))

    router_bias = config.flag("router_bias", default=False)
    dense = DenseFfn(mlp(prefix))
    mixture = MoeFfn(
        num_experts=experts,
        top_k=1,
        expert=mlp(f"{prefix}.experts.expert_0"),
        router=linear(f"{prefix}.router.classifier", experts, hidden_size, bias=router_bias, tp_ways=1),
    )
    return lambda index: mixture if stride == 1 or (stride > 1 and index % stride == 1) else dense
