"""Attention of models with an encoder: both ways over a text at once, and from a decoder to what the encoder read.

The encoder is an `Architecture` of its own. A pass of it is a step over whole sources; what it leaves behind are the
keys and values of cross-attention. So the projections that make them belong to the encoder's pass although they lie in
the decoder's blocks: they run once over the source, and no decode step reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.mixers import Attention, Mixer
from moe_cap.architecture.model import Layer
from moe_cap.architecture.reach import both_sides
from moe_cap.architecture.weights import Weight
from moe_cap.errors import TraceError


@dataclass(frozen=True, slots=True)
class EncoderAttention(Mixer):
    """Every token sees the tokens on both sides; its keys and values are activations, so there is no cache.

    Attributes:
        num_heads: query heads.
        head_dim: width of a query, a key and a value.
        window: tokens that it sees on either side, None for all.
    """

    num_heads: int
    head_dim: int
    window: int | None = None

    @property
    def tp_ways(self) -> int | None:
        """Heads."""
        return self.num_heads

    def kv_read(self, context: int, new: int) -> int:
        """Nothing, of a whole text."""
        _check_whole(context, new)
        return 0

    def score_flops(self, context: int, new: int) -> int:
        """2 for QK^T and 2 for AV between any two tokens that see each other."""
        _check_whole(context, new)
        return 4 * self.num_heads * self.head_dim * both_sides(new, self.window)


def _check_whole(context: int, new: int) -> None:
    if new not in (0, context):
        raise TraceError(
            f"an encoder sees its whole text at once: a step cannot compute {new} of {context} tokens (a prefill step"
            " of as many new tokens as context can)"
        )


@dataclass(frozen=True, slots=True)
class SourceProjection(Mixer):
    """What turns an encoder's output into the keys and values that one decoder block attends to, once per source."""

    num_heads: int
    head_dim: int

    @property
    def kv_elements_per_token(self) -> int:
        """A key and a value per head."""
        return 2 * self.num_heads * self.head_dim

    @property
    def tp_ways(self) -> int | None:
        """Heads."""
        return self.num_heads

    def kv_cached(self, context: int) -> int:
        """Of every token of the source, as long as it is decoded from."""
        return self.kv_elements_per_token * context


@dataclass(frozen=True, slots=True)
class DecoderAttention(Attention):
    """Self-attention, and attention of the same heads over a source; its weights hold the latter's query and output."""

    def source_read(self, source: int, new: int) -> int:
        """The keys and values of the whole source, at every step."""
        return self._elements * source if new else 0

    def source_score_flops(self, source: int, new: int) -> int:
        """2 for QK^T and 2 for AV with every token of the source."""
        return 2 * self.num_heads * (self.qk_head_dim + self.v_head_dim) * source * new


def source_layer(path: str, weights: tuple[Weight, ...], num_heads: int, head_dim: int) -> Layer:
    """The end of an encoder's pass: the keys and values for the decoder block at `path`."""
    return Layer(path, SourceProjection(weights, num_heads, head_dim), DenseFfn(()), norms=())
