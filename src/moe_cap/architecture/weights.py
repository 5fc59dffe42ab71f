"""The tensors that a model is made of: what every byte and every FLOP is counted from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """Where a parameter belongs. A tensor belongs to the module it lives in: a query norm is attention, not norm."""

    ATTENTION = "attention"
    ROUTER = "router"
    EXPERTS = "experts"
    SHARED_EXPERTS = "shared_experts"
    DENSE_FFN = "dense_ffn"
    EMBEDDING = "embedding"
    LM_HEAD = "lm_head"
    NORM = "norm"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor.

    Attributes:
        name: its name inside its layer, as the checkpoint on the Hub spells it ("self_attn.q_proj.weight").
        shape: (out, in) of a matrix, (n,) of a vector, (channels, 1, width) of a depthwise convolution.
        tp_ways: slices that tensor parallelism can cut it into at most (1: every rank keeps a copy; None: any number).
        is_buffer: stored and read, but not a parameter (the correction bias of DeepSeek-V3's router).
        dtype: the format that the checkpoint keeps it in whatever the model's is ("fp32"), None for the model's.
        elementwise: added or scaled by, not multiplied with: no FLOPs, never quantised.
        lookup: rows that each token reads in a table (0: it is none): no FLOPs, never quantised.
    """

    name: str
    shape: tuple[int, ...]
    tp_ways: int | None = None
    is_buffer: bool = False
    dtype: str | None = None
    elementwise: bool = False
    lookup: int = 0

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def num_parameters(self) -> int:
        """Number of values that count as parameters."""
        return 0 if self.is_buffer else self.numel

    @property
    def is_matrix(self) -> bool:
        """A Linear layer's weight: what quantisation applies to."""
        return len(self.shape) == 2 and not self.elementwise and not self.lookup

    @property
    def flops_per_token(self) -> int:
        """Multiply-adds of one token, times two. Vectors (norms, biases) count nothing, as in torch's counter."""
        return 2 * self.numel if len(self.shape) >= 2 and not self.elementwise and not self.lookup else 0

    @property
    def module(self) -> str:
        """The module that holds it, which is what the ignore lists of quantised checkpoints name."""
        return self.name.rpartition(".")[0]


def linear(
    name: str, out_features: int, in_features: int, *, bias: bool = False, tp_ways: int | None = None
) -> tuple[Weight, ...]:
    """A Linear layer: its (out, in) weight, and its (out,) bias if it has one."""
    weight = Weight(f"{name}.weight", (out_features, in_features), tp_ways)
    return (weight, Weight(f"{name}.bias", (out_features,), tp_ways)) if bias else (weight,)


def vector(name: str, size: int, *, tp_ways: int | None = 1) -> tuple[Weight, ...]:
    """A vector, such as the gain of a norm; replicated over tensor-parallel ranks unless `tp_ways` says otherwise."""
    return (Weight(name, (size,), tp_ways),)


def norm(name: str, size: int, *, bias: bool = False) -> tuple[Weight, ...]:
    """The gain of an RMSNorm, or the gain and bias of a LayerNorm."""
    gain = Weight(f"{name}.weight", (size,), 1)
    return (gain, Weight(f"{name}.bias", (size,), 1)) if bias else (gain,)


def gated_mlp(
    name: str,
    hidden_size: int,
    intermediate_size: int,
    *,
    bias: bool = False,
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> tuple[Weight, ...]:
    """A gated MLP: gate and up (intermediate, hidden), down (hidden, intermediate)."""
    gate, up, down = names
    return (
        *linear(f"{name}.{gate}", intermediate_size, hidden_size, bias=bias),
        *linear(f"{name}.{up}", intermediate_size, hidden_size, bias=bias),
        *linear(f"{name}.{down}", hidden_size, intermediate_size, bias=bias),
    )


def count_parameters(weights: Iterable[Weight]) -> int:
    """Parameters in all of them."""
    return sum(weight.num_parameters for weight in weights)


def matmul_flops(weights: Iterable[Weight]) -> int:
    """FLOPs that one token costs in all of them."""
    return sum(weight.flops_per_token for weight in weights)
