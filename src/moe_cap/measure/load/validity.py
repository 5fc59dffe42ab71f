"""When a run must not be believed. Each rule gives a sentence for people, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from moe_cap.measure.load.drive import Saturation
from moe_cap.measure.load.events import RequestEvents, TokenCounting
from moe_cap.measure.load.schedule import Arrivals
from moe_cap.metrics.latency import summary

REMEDY = "repeat on a machine with nothing else to do, leave the server fewer processors, or lower the load"


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits of what is believed.

    Attributes:
        max_lag_s: the 99th percentile of how late requests were sent.
        max_beat_lag_s: the 99th percentile of how late the client's own loop was.
        max_failed_share: share of requests that may fail; above it the server is bad and the run is given up.
        max_degenerate_share: share of answers that are blank or one character over and over; 1.0 for random weights.
    """

    max_lag_s: float = 0.005
    max_beat_lag_s: float = 0.005
    max_failed_share: float = 0.02
    max_degenerate_share: float = 0.5


def broken_rules(
    requests: Sequence[RequestEvents],
    arrivals: Arrivals,
    saturation: Sequence[Saturation],
    rules: Rules,
    *,
    exact_lengths: bool,
) -> tuple[str, ...]:
    """Every reason not to believe this run; empty when it is valid."""
    complete = [request for request in requests if request.failure is None]
    found = [
        *client_limits(requests, saturation, rules),
        *_loop_kept(requests, arrivals),
        *_lengths(complete, exact=exact_lengths),
        *_degenerate(complete, rules),
    ]
    return tuple(found)


def peak_concurrency(requests: Sequence[RequestEvents]) -> int:
    """Most requests that were under way at once, as observed; one that takes the place of another is not beside it."""
    moments = sorted([(request.ended_s, -1) for request in requests] + [(request.sent_s, 1) for request in requests])
    return max(accumulate(change for _, change in moments), default=0)


def _p99(values: Iterable[float]) -> float:
    distribution = summary(values)
    return 0.0 if distribution is None else distribution.p99


def client_limits(requests: Sequence[RequestEvents], saturation: Sequence[Saturation], rules: Rules) -> Iterator[str]:
    """Why the run is its client's and not the server's."""
    lag_s = _p99(request.lag_s for request in requests)
    if lag_s > rules.max_lag_s:
        yield (
            f"limited by its own client: requests were sent up to {lag_s * 1e3:.1f} ms late (p99), "
            f"the limit is {rules.max_lag_s * 1e3:g} ms; {REMEDY}"
        )
    for worker in saturation:
        beat_lag_s = _p99(worker.beat_lag_s)
        if beat_lag_s > rules.max_beat_lag_s:
            yield (
                f"limited by its own client: its loop was {beat_lag_s * 1e3:.1f} ms late (p99), the limit is "
                f"{rules.max_beat_lag_s * 1e3:g} ms, busy for {worker.busy_share:.0%} of the time; {REMEDY}"
            )


def _loop_kept(requests: Sequence[RequestEvents], arrivals: Arrivals) -> Iterator[str]:
    observed = peak_concurrency(requests)
    if arrivals.concurrency not in {None, observed}:
        yield f"{arrivals.concurrency} requests were to be under way at once, {observed} were observed"


def _lengths(complete: Sequence[RequestEvents], *, exact: bool) -> Iterator[str]:
    """Three counts must agree: what was asked, what the server says, what arrived."""
    problems: Counter[str] = Counter()
    for request in complete:
        arrived, usage = sum(request.chunk_tokens), request.usage
        if usage is None:
            problems["the server told no usage, so token counts are unproven"] += 1
            continue
        counted = request.counting is not TokenCounting.UNKNOWN
        if arrived > usage.completion_tokens or (counted and arrived != usage.completion_tokens):
            problems[f"{arrived} tokens arrived where the server counted {usage.completion_tokens}"] += 1
        if exact and usage.completion_tokens != request.asked_output_tokens:
            problems[f"{usage.completion_tokens} tokens answered where {request.asked_output_tokens} were asked"] += 1
        if request.asked_input_tokens not in {None, usage.prompt_tokens}:
            problems[
                f"the server counted {usage.prompt_tokens} tokens in a prompt of {request.asked_input_tokens}: "
                "it uses another tokenizer, or adds to the prompt"
            ] += 1
    for problem, count in problems.most_common(3):
        yield f"{problem} (in {count} of {len(complete)} answers)"


def _degenerate(complete: Sequence[RequestEvents], rules: Rules) -> Iterator[str]:
    degenerate = sum(is_degenerate(request.text) for request in complete)
    if complete and degenerate / len(complete) > rules.max_degenerate_share:
        yield f"{degenerate} of {len(complete)} answers are blank or one character over and over"


def is_degenerate(text: str) -> bool:
    """Blank, or a single character repeated: what a broken kernel writes."""
    letters = set(text.split()) if text.strip() else set()
    return len({character for word in letters for character in word}) <= 1
