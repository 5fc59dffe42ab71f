"""When requests are sent: a closed loop keeps a number under way, an open loop follows the clock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np

from moe_cap.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Lengths:
    """Fixed lengths of every request, in tokens."""

    input_tokens: int
    output_tokens: int


PRESETS: dict[str, Lengths] = {
    "4k/1k": Lengths(4_000, 1_000),
    "13k/1k": Lengths(13_000, 1_000),
    "1k/8k": Lengths(1_000, 8_000),
}
"""The fixed-length loads of the MoE-CAP configurations: K is 1000 there."""


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Exactly `concurrency` requests under way until there are none left to send."""

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise InvalidInputError(f"a closed loop needs a concurrency of at least 1, not {self.concurrency}")

    def due_s(self, _index: int) -> float | None:
        """No request has a time of its own: it is sent when there is a place for it."""
        return None

    def split(self, workers: int) -> tuple[ClosedLoop, ...]:
        """Shares of several workers, together the same concurrency.

        Raises:
            InvalidInputError: a worker would have nothing to do.
        """
        if not 1 <= workers <= self.concurrency:
            raise InvalidInputError(f"{workers} workers cannot share a concurrency of {self.concurrency}")
        each, more = divmod(self.concurrency, workers)
        return tuple(ClosedLoop(each + (worker < more)) for worker in range(workers))

    def check(self, requests: int) -> None:
        """Refuse a number of requests that this loop cannot carry.

        Raises:
            InvalidInputError: too few ever to reach the concurrency.
        """
        if requests < self.concurrency:
            raise InvalidInputError(f"{requests} requests never make a concurrency of {self.concurrency}: give more")


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """One request at each of `arrivals_s`, seconds from the start, whatever became of those before it."""

    arrivals_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if (
            not self.arrivals_s
            or not self.arrivals_s[0] >= 0
            or any(not before <= after for before, after in pairwise(self.arrivals_s))
        ):
            raise InvalidInputError("arrival times must be at least one, not negative, and in order")

    @property
    def concurrency(self) -> None:
        """An open loop has none."""
        return

    def due_s(self, index: int) -> float | None:
        """When request `index` is to be sent, seconds from the start."""
        return self.arrivals_s[index]

    def split(self, workers: int) -> tuple[OpenLoop, ...]:
        """Shares of several workers, dealt in turn.

        Raises:
            InvalidInputError: a worker would have nothing to do.
        """
        if not 1 <= workers <= len(self.arrivals_s):
            raise InvalidInputError(f"{workers} workers cannot share {len(self.arrivals_s)} requests")
        return tuple(OpenLoop(self.arrivals_s[worker::workers]) for worker in range(workers))

    def check(self, requests: int) -> None:
        """Refuse a number of requests that this loop cannot carry.

        Raises:
            InvalidInputError: not one for each arrival.
        """
        if requests != len(self.arrivals_s):
            raise InvalidInputError(f"{len(self.arrivals_s)} arrival times for {requests} prompts: give one for each")

    @property
    def rate_per_s(self) -> float | None:
        """Mean rate between the first and the last arrival; None for a single moment."""
        span_s = self.arrivals_s[-1] - self.arrivals_s[0]
        return (len(self.arrivals_s) - 1) / span_s if span_s > 0 else None


Arrivals: TypeAlias = ClosedLoop | OpenLoop


def constant(rate_per_s: float, count: int) -> OpenLoop:
    """`count` arrivals at equal distances of 1 / rate, the first at 0."""
    gap_s = 1.0 / _positive("rate", rate_per_s)
    return OpenLoop(tuple(index * gap_s for index in range(_positive_count(count))))


def poisson(rate_per_s: float, count: int, rng: np.random.Generator) -> OpenLoop:
    """Arrivals that know nothing of each other: exponential gaps of mean 1 / rate."""
    return gamma(rate_per_s, 1.0, count, rng)


def gamma(rate_per_s: float, burstiness: float, count: int, rng: np.random.Generator) -> OpenLoop:
    """Gaps from a gamma distribution of shape `burstiness` and mean 1 / rate.

    1 is Poisson, below 1 comes in bursts, above 1 is more even (the meaning that vLLM's benchmark gave it).
    """
    shape = _positive("burstiness", burstiness)
    gaps_s = rng.gamma(shape, 1.0 / (_positive("rate", rate_per_s) * shape), _positive_count(count))
    return OpenLoop(tuple(float(at) for at in np.cumsum(gaps_s) - gaps_s[0]))


def replay(times_s: Iterable[float], *, speed: float = 1.0) -> OpenLoop:
    """The arrivals of a recorded trace, moved to begin at 0 and played `speed` times as fast."""
    times: Sequence[float] = sorted(times_s)
    if not times:
        raise InvalidInputError("a trace without one arrival cannot be replayed")
    return OpenLoop(tuple((at - times[0]) / _positive("speed", speed) for at in times))


def _positive(name: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise InvalidInputError(f"{name} must be a number above 0, not {value!r}")
    return value


def _positive_count(count: int) -> int:
    if count < 1:
        raise InvalidInputError(f"a schedule needs at least one request, not {count}")
    return count
