"""The arithmetic of `overhead.py`: blocks of passes, a ratio with its interval, the price of the routing pass."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from moe_cap.errors import InvalidRunError

LIMIT = 1.01
"""The timing pass may cost at most this much of the engine driven bare."""
CONFIDENCE = 0.95
RESAMPLES = 9999
QUIET = 0.25
"""The quantile of passes that little else disturbed."""
TRIES = 3
"""Blocks, or passes, that are begun for each that is wanted: the pipeline refuses passes that it cannot believe."""


@dataclass(frozen=True, slots=True)
class Pass:
    """All requests carried once.

    Attributes:
        tpot_s: time per output token after the first, the mean over the requests.
        wall_s: what the caller waited.
        cpu_s: processor time of this process meanwhile: the client's where a server computes.
        answers: what was said, by request: token ids in process, text from a server.
    """

    tpot_s: float
    wall_s: float
    cpu_s: float
    answers: tuple[tuple[int, ...] | str, ...]


Carry = Callable[[], Pass]
Figure = Callable[[Pass], float]
Carried = TypeVar("Carried")


@dataclass(frozen=True, slots=True)
class Block:
    """Two passes of each side, so interleaved that a steady drift of the machine cancels."""

    bare: tuple[Pass, Pass]
    ours: tuple[Pass, Pass]

    def ratio(self, figure: Figure) -> float:
        """Ours over bare."""
        return sum(map(figure, self.ours)) / sum(map(figure, self.bare))

    @property
    def agreeing(self) -> float:
        """Share of the answers that both sides gave: the same tokens are the same work.

        A server's batches are never the same twice, and in bf16 their rounding turns a token here and there.
        """
        pairs = [
            pair
            for ours, bare in zip(self.ours, self.bare, strict=True)
            for pair in zip(ours.answers, bare.answers, strict=True)
        ]
        return sum(ours == bare for ours, bare in pairs) / len(pairs)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median over the blocks, with its bootstrap interval."""

    value: float
    low: float
    high: float

    def verdict(self, limit: float) -> str:
        """Whether it is at most the limit, as far as the interval tells.

        Far below one is no merit: our clock then misses time that the bare client saw.
        """
        if self.low > limit:
            return "missed"
        if self.high < 1 / limit:
            return "too low"
        return "kept" if self.high <= limit else "not decided"


def carry_block(bare: Carry, ours: Carry, order: str) -> Block:
    """Four passes in the order given, A for bare and B for ours."""
    sides: dict[str, list[Pass]] = {"A": [], "B": []}
    for side in order:
        sides[side].append(bare() if side == "A" else ours())
    (first, second), (third, fourth) = sides["A"], sides["B"]
    return Block((first, second), (third, fourth))


def carry_blocks(bare: Carry, ours: Carry, rounds: int) -> tuple[list[Block], int]:
    """So many blocks, ABBA and BAAB in turn, and how many were dropped whole because a pass of ours was refused.

    Raises:
        InvalidRunError: too many of them were.
    """
    blocks: list[Block] = []
    orders: Iterator[str] = cycle(("ABBA", "BAAB"))
    refused, order = "", next(orders)
    for tried in range(1, TRIES * rounds + 1):
        try:
            blocks.append(carry_block(bare, ours, order))
        except InvalidRunError as error:
            refused = str(error)
            continue
        if len(blocks) == rounds:
            return blocks, tried - rounds
        order = next(orders)
    raise InvalidRunError(f"{len(blocks)} of {TRIES * rounds} blocks could be believed; the last refusal: {refused}")


def believed(carry: Callable[[], Carried]) -> Carried:
    """One pass outside the blocks; a refused one is carried again.

    Raises:
        InvalidRunError: every one was refused.
    """
    for _ in range(TRIES - 1):
        with suppress(InvalidRunError):
            return carry()
    return carry()


def ratio_of(blocks: Sequence[Block], figure: Figure) -> Ratio:
    """Ours over bare: the median of the blocks' ratios."""
    ratios = np.array([block.ratio(figure) for block in blocks])
    return _with_interval(len(blocks), lambda places: np.median(ratios[places], axis=-1))


def quiet_ratio_of(blocks: Sequence[Block], figure: Figure) -> Ratio:
    """Ours over bare: the lower quartile of all passes of one side over that of the other.

    What else happens on a machine only adds time, now to one side and now to the other; what measuring costs is in
    every pass. A cost that strikes seldom is not seen here, but in `ratio_of`.
    """
    ours, bare = (np.array([[*map(figure, getattr(block, side))] for block in blocks]) for side in ("ours", "bare"))
    return _with_interval(len(blocks), lambda places: _quiet(ours[places]) / _quiet(bare[places]))


def _quiet(passes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower quartile of (..., blocks, passes)."""
    return np.quantile(passes, QUIET, axis=(-2, -1))


def _with_interval(blocks: int, figure: Callable[[NDArray[np.intp]], NDArray[np.float64]]) -> Ratio:
    """A figure of the blocks at (..., places), and its percentile bootstrap over whole blocks."""
    places = np.arange(blocks)
    drawn = stats.bootstrap(
        (places,), lambda drawn, axis: figure(drawn), vectorized=True, confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    interval = drawn.confidence_interval
    return Ratio(float(figure(places)), float(interval.low), float(interval.high))


def median_of(blocks: Sequence[Block], side: str, figure: Figure) -> float:
    """Median over all passes of one side, `bare` or `ours`."""
    return statistics.median(figure(each) for block in blocks for each in getattr(block, side))


@dataclass(frozen=True, slots=True)
class RoutingCost:
    """What one level pays to learn where its tokens went; seconds.

    Attributes:
        timing_s: timing passes.
        first_s: the first routing pass, with the start of a server that records where the engine needs one.
        again_s: further ones.
        back_s: until the timed server is up again; None for an engine that stays as it is.
        steps: forward passes of the timing pass where the routing pass has the same ones; None where it has others.
    """

    timing_s: tuple[float, ...]
    first_s: float
    again_s: tuple[float, ...]
    back_s: float | None
    steps: int | None

    @property
    def timed_s(self) -> float:
        """The timing pass."""
        return statistics.median(self.timing_s)

    @property
    def routed_s(self) -> float:
        """The routing pass without any start."""
        return statistics.median(self.again_s)

    @property
    def share(self) -> float:
        """Routing pass over timing pass."""
        return self.routed_s / self.timed_s

    @property
    def starts_s(self) -> tuple[float, float] | None:
        """Until the recording server is up, and until the timed one is up again; None without a server."""
        return None if self.back_s is None else (max(0.0, self.first_s - self.routed_s), self.back_s)

    @property
    def share_with_starts(self) -> float:
        """The same with the second start, and with the one that brings the timed server back, where there is one."""
        return self.share if self.back_s is None else (self.first_s + self.back_s) / self.timed_s

    @property
    def step_s(self) -> float | None:
        """What forcing and recording add to a forward pass."""
        return None if self.steps is None else (self.routed_s - self.timed_s) / self.steps
