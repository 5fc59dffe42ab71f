"""Mixers that keep a state of fixed size instead of a cache that grows: linear attention, Mamba, short convolutions."""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.architecture.mixers import Mixer


@dataclass(frozen=True, slots=True)
class Recurrent(Mixer):
    """A recurrence over tokens.

    Attributes:
        num_heads: independent states, which is how far tensor parallelism can cut them.
        recurrent_elements: values of the recurrent state of a sequence, kept in the state format (fp32 as a rule).
        window_elements: values of the convolution's window of a sequence, kept in the activations' format.
        flops_per_token: FLOPs of the recurrence itself in its token-by-token form: 2 for each product of a state
            element (update, read, and the delta rule's lookup). Chunked kernels do more, as flash attention does.
    """

    num_heads: int
    recurrent_elements: int
    window_elements: int
    flops_per_token: int

    @property
    def state_elements(self) -> int:
        """The recurrent state."""
        return self.recurrent_elements

    @property
    def conv_elements(self) -> int:
        """The convolution's window."""
        return self.window_elements

    @property
    def tp_ways(self) -> int | None:
        """Heads."""
        return self.num_heads

    def score_flops(self, context: int, new: int) -> int:
        """The same for every token, however long the context."""
        return self.flops_per_token * new
