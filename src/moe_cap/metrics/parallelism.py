"""How a model is spread over devices, and how many copies of each tensor that leaves."""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Sizes of the groups that devices form.

    Tensor parallelism cuts matrices and the KV cache; data parallelism copies attention, shared experts, router and
    output head for every group and gives each its own sequences; expert parallelism spreads the routed experts over
    all ranks of a pipeline stage, so that each of them exists once; pipeline parallelism cuts the stack of layers.
    """

    tp: int = 1
    ep: int = 1
    dp: int = 1
    pp: int = 1

    def __post_init__(self) -> None:
        for name in ("tp", "ep", "dp", "pp"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name}_size is {value!r}: expected an integer >= 1")
        if self.ep > 1 and max(self.stage_size, self.ep) % min(self.stage_size, self.ep):
            raise InvalidInputError(f"ep_size {self.ep} does not fit tp_size * dp_size = {self.tp * self.dp}")

    @property
    def stage_size(self) -> int:
        """Ranks of a pipeline stage."""
        return max(self.tp * self.dp, self.ep if self.ep % self.tp == 0 else self.tp * self.dp)

    @property
    def num_devices(self) -> int:
        """Devices in all."""
        return self.stage_size * self.pp

    @property
    def replicas(self) -> int:
        """Copies of everything outside the routed experts: one for each tensor-parallel group of a stage."""
        return self.stage_size // self.tp

    def copies(self, tp_ways: int | None) -> float:
        """Copies over a stage's ranks of a tensor that tensor parallelism cuts into `tp_ways` slices at most."""
        return self.replicas * self.tensor_copies(tp_ways)

    def tensor_copies(self, tp_ways: int | None) -> float:
        """Copies within one tensor-parallel group."""
        return 1.0 if tp_ways is None else max(1.0, self.tp / tp_ways)


SINGLE_DEVICE = Parallelism()
