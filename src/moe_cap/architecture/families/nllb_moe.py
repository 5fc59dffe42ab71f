"""NLLB-MoE: a translator with two experts per token in every fourth layer, encoder and decoder."""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.architecture.config import Config
from moe_cap.architecture.encoder_decoder import DecoderAttention, EncoderAttention, source_layer
from moe_cap.architecture.feed_forward import DenseFfn, FeedForward, MoeFfn
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear, norm


def read(config: Config) -> Architecture:
    """Positions are sinusoids, so nothing is stored for them.

    Raises:
        ConfigError: separate embeddings, of which no published checkpoint is known.
    """
    if not config.flag("tie_word_embeddings", default=True):
        raise config.complain("tie_word_embeddings", "false: expected true, one table for encoder, decoder and output")
    hidden_size, vocab_size = config.size("d_model"), config.size("vocab_size")
    source, target = _Stack(config, "encoder"), _Stack(config, "decoder")
    table = (Weight("model.shared.weight", (vocab_size, hidden_size), lookup=1),)
    encoder = Architecture(
        model_type="nllb-moe",
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=(*map(source.encoder_layer, range(source.number)), *map(target.source_layer, range(target.number))),
        embedding=table,
        lm_head=(),
        norms=norm("model.encoder.layer_norm", hidden_size, bias=True),
    )
    return Architecture(
        model_type="nllb-moe",
        hidden_size=hidden_size,
        vocab_size=vocab_size,
        layers=tuple(map(target.decoder_layer, range(target.number))),
        embedding=table,
        lm_head=linear("lm_head", vocab_size, hidden_size),
        norms=norm("model.decoder.layer_norm", hidden_size, bias=True),
        tied=True,
        encoder=encoder,
    )


@dataclass(frozen=True)
class _Stack:
    """Layers of one side; its sizes are under keys that begin with its name."""

    config: Config
    side: str

    @property
    def number(self) -> int:
        return self.config.num_layers(f"{self.side}_layers")

    def encoder_layer(self, index: int) -> Layer:
        weights, heads, head_dim = self._projections("self_attn", "kvq", out=True), *self._heads()
        return Layer(self._path(index), EncoderAttention(weights, heads, head_dim), self._ffn(index), self._norms())

    def decoder_layer(self, index: int) -> Layer:
        heads, head_dim = self._heads()
        own, cross = (
            self._projections("self_attn", "kvq", out=True),
            self._projections("cross_attention", "q", out=True),
        )
        mixer = DecoderAttention((*own, *cross), heads, heads, head_dim, head_dim)
        return Layer(self._path(index), mixer, self._ffn(index), self._norms("cross_attention_layer_norm"))

    def source_layer(self, index: int) -> Layer:
        return source_layer(self._path(index), self._projections("cross_attention", "kv", out=False), *self._heads())

    def _path(self, index: int) -> str:
        return f"model.{self.side}.layers.{index}"

    def _heads(self) -> tuple[int, int]:
        hidden_size, key = self.config.size("d_model"), f"{self.side}_attention_heads"
        heads = self.config.size(key)
        if hidden_size % heads:
            raise self.config.complain(key, f"{heads} does not divide d_model {hidden_size}")
        return heads, hidden_size // heads

    def _projections(self, name: str, letters: str, *, out: bool) -> tuple[Weight, ...]:
        size, heads = self.config.size("d_model"), self._heads()[0]
        names = (*(f"{letter}_proj" for letter in letters), *(("out_proj",) if out else ()))
        return tuple(w for each in names for w in linear(f"{name}.{each}", size, size, bias=True, tp_ways=heads))

    def _norms(self, *further: str) -> tuple[Weight, ...]:
        names = ("self_attn_layer_norm", *further, "ff_layer_norm")
        return tuple(w for name in names for w in norm(name, self.config.size("d_model"), bias=True))

    def _ffn(self, index: int) -> FeedForward:
        hidden_size, width = self.config.size("d_model"), self.config.size(f"{self.side}_ffn_dim")
        stride = self.config.count(f"{self.side}_sparse_step", default=4)

        def mlp(name: str) -> tuple[Weight, ...]:
            up, down = linear(f"{name}.fc1", width, hidden_size, bias=True), linear(f"{name}.fc2", hidden_size, width)
            return (*up, *down, Weight(f"{name}.fc2.bias", (hidden_size,)))

        if not stride or (index + 1) % stride:
            return DenseFfn(mlp("ffn"))
        experts, bias = self.config.size("num_experts"), self.config.flag("router_bias", default=False)
        if experts < 2:
            raise self.config.complain("num_experts", f"{experts}: expected at least the two that a token is sent to")
        router = linear("ffn.router.classifier", experts, hidden_size, bias=bias, tp_ways=1)
        return MoeFfn(num_experts=experts, top_k=2, expert=mlp("ffn.experts.expert_0"), router=router)
