"""The feed-forward half of a layer: dense, or a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.architecture.weights import Weight


@dataclass(frozen=True, slots=True)
class DenseFfn:
    """One MLP that every token goes through; no weights at all in a layer that only mixes tokens."""

    weights: tuple[Weight, ...]


@dataclass(frozen=True, slots=True)
class MoeFfn:
    """Experts of which a router picks some for each token.

    Attributes:
        num_experts: routed experts that hold weights.
        top_k: experts per token.
        expert: tensors of one routed expert, named as those of expert 0; all experts of a layer are alike.
        router: tensors of the router.
        shared: tensors of the shared experts and their gate, used by every token.
        dense: tensors of an MLP that every token goes through beside the experts (Arctic, Gemma 4, latent projections).
        zero_experts: further ids that the router can pick and that compute nothing (LongCat-Flash).
    """

    num_experts: int
    top_k: int
    expert: tuple[Weight, ...]
    router: tuple[Weight, ...]
    shared: tuple[Weight, ...] = ()
    dense: tuple[Weight, ...] = ()
    zero_experts: int = 0

    @property
    def num_choices(self) -> int:
        """Ids that the router picks from."""
        return self.num_experts + self.zero_experts

    @property
    def computed_top_k(self) -> float:
        """Experts per token that compute something, on average under uniform routing where some compute nothing."""
        return self.top_k * self.num_experts / self.num_choices if self.zero_experts else self.top_k


FeedForward = DenseFfn | MoeFfn
