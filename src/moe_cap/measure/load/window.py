"""The steady part of a run: what lies outside it belongs to starting up and running dry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_cap.measure.load.events import RequestEvents
from moe_cap.measure.load.schedule import ClosedLoop, OpenLoop


@dataclass(frozen=True, slots=True)
class Window:
    """From `start_s` to `end_s`, seconds since the start of the run."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s

    def holds(self, at_s: float) -> bool:
        """Whether a moment lies in it."""
        return self.start_s <= at_s <= self.end_s


def in_flight_after_sends(requests: Sequence[RequestEvents]) -> Iterator[tuple[float, int]]:
    """At every send its time and the number of requests under way, that one included."""
    moments = sorted([(r.ended_s, 0, -1) for r in requests] + [(r.sent_s, 1, 1) for r in requests])
    under_way = 0
    for at_s, _, change in moments:
        under_way += change
        if change > 0:
            yield at_s, under_way


def peak_concurrency(requests: Sequence[RequestEvents]) -> int:
    """Most requests that were under way at once, as observed."""
    return max((under_way for _, under_way in in_flight_after_sends(requests)), default=0)


def steady_window(requests: Sequence[RequestEvents], arrivals: ClosedLoop | OpenLoop) -> Window | None:
    """From when the target concurrency is first reached until the last send that still restored it.

    With one worker that is the last request of the run; with several it is the last one before the first of them ran
    dry. An open loop has no target: its window goes from the first send to the last. None when there is no such time,
    as in a run of a single batch.
    """
    target = arrivals.concurrency if isinstance(arrivals, ClosedLoop) else 1
    full = [at_s for at_s, under_way in in_flight_after_sends(requests) if under_way >= target]
    if not full or full[-1] <= full[0]:
        return None
    return Window(full[0], full[-1])
