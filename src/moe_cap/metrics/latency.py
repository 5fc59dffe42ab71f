"""Latency and throughput from the raw events of requests, on the client's clock (docs/metrics.md, "Latency").

Times are seconds on one monotonic clock. Request latency is what a client saw; the time of an engine's step is another
thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np

from moe_cap.errors import InvalidInputError
from moe_cap.metrics.student_t import Interval, confidence_interval_95

__all__ = [
    "Interval",
    "Percentiles",
    "RequestTiming",
    "Slo",
    "Throughput",
    "Window",
    "WindowKind",
    "confidence_interval_95",
    "goodput_requests_per_s",
    "measurement_window",
    "summary",
    "throughput",
]


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """One request's events.

    Attributes:
        sent_s: when it was sent.
        intended_s: when it should have been sent (open loop); None in a closed loop, where nothing is planned.
        token_s: arrival of each token, in order, those of one piece at one moment; or of each piece of output, where
            nobody tells how many tokens it held.
        ended_s: when its stream ended.
        input_tokens, output_tokens: counts as the server reports them.
        error: why it failed; its latencies count nowhere, and it meets no objective.
    """

    sent_s: float
    intended_s: float | None
    token_s: tuple[float, ...]
    ended_s: float
    input_tokens: int
    output_tokens: int
    error: str | None = None

    def __post_init__(self) -> None:
        times = (self.sent_s, *self.token_s, self.ended_s)
        if any(not math.isfinite(time) for time in times) or any(a > b for a, b in pairwise(times)):
            raise InvalidInputError(
                f"events out of order: sent {self.sent_s}, tokens {self.token_s}, ended {self.ended_s}"
            )
        if self.input_tokens < 0 or self.output_tokens < 0:
            raise InvalidInputError(
                f"{self.input_tokens} input and {self.output_tokens} output tokens: expected counts"
            )

    @property
    def ttft_s(self) -> float | None:
        """First content token minus send; None when no token came."""
        return self.token_s[0] - self.sent_s if self.token_s else None

    @property
    def tpot_s(self) -> float | None:
        """(end - first token) / (output tokens - 1); None for an answer of fewer than two tokens."""
        if not self.token_s or self.output_tokens < 2:
            return None
        return (self.ended_s - self.token_s[0]) / (self.output_tokens - 1)

    @property
    def itl_s(self) -> tuple[float, ...]:
        """Gaps between pieces of output that follow each other; tokens that came at one moment are one piece."""
        return tuple(later - earlier for earlier, later in pairwise(self.piece_s))

    @property
    def piece_s(self) -> tuple[float, ...]:
        """The moments at which output came, whether `token_s` tells them of pieces or of every token in them."""
        return tuple(dict.fromkeys(self.token_s))

    @property
    def e2e_s(self) -> float:
        """End minus send."""
        return self.ended_s - self.sent_s

    @property
    def schedule_lag_s(self) -> float | None:
        """Actual minus intended send; None in a closed loop."""
        return None if self.intended_s is None else self.sent_s - self.intended_s


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A distribution in short; `std` is the sample's, None for a single value."""

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    std: float | None
    count: int


def summary(values: Iterable[float | None]) -> Percentiles | None:
    """Percentiles (linear interpolation), mean and spread of the values that are known; None when none is."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if known.size == 0:
        return None
    p50, p90, p95, p99 = (float(value) for value in np.percentile(known, [50, 90, 95, 99]))
    std = float(known.std(ddof=1)) if known.size > 1 else None
    return Percentiles(p50, p90, p95, p99, float(known.mean()), std, int(known.size))


class WindowKind(StrEnum):
    """`steady`: at the target load throughout; `whole`: first send to last end, ramps included."""

    STEADY = "steady"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Window:
    """The time over which rates are taken, [start, end)."""

    start_s: float
    end_s: float
    kind: WindowKind

    @property
    def length_s(self) -> float:
        """Seconds, above 0."""
        return self.end_s - self.start_s

    def __contains__(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s


def measurement_window(timings: Sequence[RequestTiming], concurrency: int | None) -> Window:
    """The steady window, or the whole run where there is none.

    The steady window lasts until the last request has been sent. It begins when `concurrency` requests are first in
    flight. An open loop (None) begins with an empty system, from which nothing can come before the first answers are
    whole: its window begins when the time that 90 % of the answers took has passed. It has to hold half of the sending,
    in time and in requests: what is shorter than the ramp before it tells of the ramp, down to a rate of 0 where no
    answer happens to end in it. A run that sends everything at once, or never reaches its concurrency, has none.

    Raises:
        InvalidInputError: there are no requests, or they took no time.
    """
    if not timings:
        raise InvalidInputError("no requests, so there is no window to take a rate over")
    reached_s = _load_reached_s(timings, concurrency)
    last_sent_s = max(timing.sent_s for timing in timings)
    first_s, end_s = min(timing.sent_s for timing in timings), max(timing.ended_s for timing in timings)
    if reached_s is not None and reached_s < last_sent_s:
        steady = Window(reached_s, last_sent_s, WindowKind.STEADY)
        sent = sum(timing.sent_s in steady for timing in timings)
        if steady.length_s >= reached_s - first_s and 2 * sent >= len(timings):
            return steady
    if not end_s > first_s:
        raise InvalidInputError("the requests took no time, so there is no rate")
    # The half-open window has to hold the last event too.
    return Window(first_s, math.nextafter(end_s, math.inf), WindowKind.WHOLE)


def _load_reached_s(timings: Sequence[RequestTiming], concurrency: int | None) -> float | None:
    if concurrency is None:
        answers = summary(timing.e2e_s for timing in timings if timing.error is None)
        return None if answers is None else min(timing.sent_s for timing in timings) + answers.p90
    # At equal times an end goes first: a closed loop sends the next request when one has ended.
    events = sorted([(timing.ended_s, -1) for timing in timings] + [(timing.sent_s, 1) for timing in timings])
    in_flight = 0
    for time_s, change in events:
        in_flight += change
        if in_flight >= concurrency:
            return time_s
    return None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Rates over one window."""

    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float
    window: Window


def throughput(timings: Sequence[RequestTiming], window: Window) -> Throughput:
    """What completed requests delivered inside the window, per second of it.

    An output token counts when its piece arrived in the window (pieces of one request count alike), input tokens when
    the first output token did, for then the prompt has been computed, a request when it ended there.
    """
    output = prompt = 0.0
    requests = 0
    for timing in (timing for timing in timings if timing.error is None):
        inside = sum(time_s in window for time_s in timing.token_s)
        if timing.token_s:
            output += timing.output_tokens * inside / len(timing.token_s)
            prompt += timing.input_tokens if timing.token_s[0] in window else 0
        requests += timing.ended_s in window
    seconds = window.length_s
    return Throughput(output / seconds, (output + prompt) / seconds, requests / seconds, window)


@dataclass(frozen=True, slots=True)
class Slo:
    """Service level objectives: upper limits in seconds, None for no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __str__(self) -> str:
        limits = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("whole answer", self.e2e_s))
        return ", ".join(f"{name} at most {limit:g} s" for name, limit in limits if limit is not None)

    def is_met_by(self, timing: RequestTiming) -> bool:
        """Whether a request completed within every limit; a one-token answer has no time per token to exceed one."""
        if timing.error is not None or timing.ttft_s is None:
            return False
        pairs = ((self.ttft_s, timing.ttft_s), (self.tpot_s, timing.tpot_s), (self.e2e_s, timing.e2e_s))
        return all(limit is None or value is None or value <= limit for limit, value in pairs)


def goodput_requests_per_s(timings: Sequence[RequestTiming], slo: Slo, window: Window) -> float:
    """Requests per second of the window that ended in it and met every objective."""
    return sum(timing.ended_s in window and slo.is_met_by(timing) for timing in timings) / window.length_s
