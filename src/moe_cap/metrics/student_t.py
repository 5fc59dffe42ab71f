"""Student's t, as much of it as an interval of the mean needs: exact for whole degrees of freedom, no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev

from moe_cap.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the half width of its 95 % confidence interval, in the unit of the values."""

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def overlaps(self, other: Interval) -> bool:
        """Whether the two cannot be told apart: a tie."""
        return self.low <= other.high and other.low <= self.high


def t_within(t: float, degrees: int) -> float:
    """Probability that |T| <= t (Abramowitz and Stegun 26.7.3 and 26.7.4, finite sums for whole degrees of freedom)."""
    theta = math.atan(t / math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2 == 0:
        term = total = 1.0
        for k in range(1, degrees // 2):
            term *= cosine * cosine * (2 * k - 1) / (2 * k)
            total += term
        return sine * total
    term = cosine
    total = cosine if degrees > 1 else 0.0
    for k in range(1, (degrees - 1) // 2):
        term *= cosine * cosine * (2 * k) / (2 * k + 1)
        total += term
    return 2 / math.pi * (theta + sine * total)


@lru_cache(maxsize=256)
def t_quantile_95(degrees: int) -> float:
    """The t that |T| stays within with 95 % probability, e.g. 12.706 for one degree of freedom.

    Raises:
        InvalidInputError: fewer than one degree of freedom.
    """
    if degrees < 1:
        raise InvalidInputError(f"{degrees} degrees of freedom: expected 1 or more")
    low, high = 1.9, 12.8  # between the quantiles of infinitely many degrees and of one
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if t_within(middle, degrees) < 0.95 else (low, middle)
    return (low + high) / 2


def confidence_interval_95(values: Sequence[float]) -> Interval | None:
    """Interval of the mean over repeats; None for a single one, which says nothing about the spread."""
    if len(values) < 2:
        return None
    half_width = t_quantile_95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(fmean(values), half_width)
