"""Where a profile stands, as lines on standard error."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Self

import typer

if TYPE_CHECKING:
    from moe_cap.measure.profile.grid import Cell
    from moe_cap.measure.profile.run import Outcome

EVERY_S = 10.0
"""Between two lines of one stage."""


class ProgressLines:
    """A line at the beginning of every stage, and one every `every_s` while it goes on.

    The second kind comes from a thread: a stage that tells how far it is has better to do than to print. It is awake
    for well under a millisecond.

    Args:
        cells: all of the profile.
        kept: those that are not measured, by fingerprint.
        every_s: seconds.
    """

    def __init__(self, cells: Sequence[Cell], kept: Mapping[str, Outcome], every_s: float = EVERY_S) -> None:
        from moe_cap.measure.levels import stage_weights  # noqa: PLC0415 measuring needs the worker's extra
        from moe_cap.measure.profile.forecast import Forecast  # noqa: PLC0415

        plans = [stage_weights(cell.submission) for cell in cells if cell.fingerprint not in kept]
        self._forecast = Forecast(plans, monotonic)
        self._cells = len(cells)
        self._every_s = every_s
        self._head: str | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin to tell."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is told any more."""
        self._over.set()
        self._thread.join()

    def watch(self, number: int, cell: Cell) -> Callable[[str, float | None, float | None], None]:
        """The listener of a cell that is measured now."""
        with self._lock:
            self._forecast.begin_cell()
            self._head = None

        def tell(stage: str, fraction: float | None, _eta_s: float | None) -> None:
            with self._lock:
                if self._forecast.hear(stage, fraction):
                    self._head = f"[{number + 1}/{self._cells}] {cell.name}: {stage}"
                    self._say(self._head)

        return tell

    def _tick(self) -> None:
        while not self._over.wait(self._every_s):
            with self._lock:
                since_s = self._forecast.in_stage_s()
                if self._head is not None and since_s >= self._every_s / 2:
                    self._say(f"{self._head}, for {duration(since_s)}")

    def _say(self, text: str) -> None:
        left, share = self._forecast.left(), self._forecast.done_share()
        told = [] if share is None else [f"{share:.0%} done"]
        if left is not None and (left.whole or left.seconds >= 1):
            told.append(f"{'about' if left.whole else 'at least'} {duration(left.seconds)} left")
        typer.echo(f"{text} ({', '.join(told)})" if told else text, err=True)


@contextmanager
def told_at_once() -> Iterator[None]:
    """Answer Ctrl-C when it is pressed: engines are stopped before the run ends, which takes its seconds."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored (nohup), or somebody else's
        yield
        return

    def say(number: int, frame: FrameType | None) -> None:
        os.write(2, b"interrupted: stopping what runs ...\n")  # a print may be under way in this very thread
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, say)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def duration(seconds: float) -> str:
    """In the unit that people would take.

    >>> duration(0.2), duration(42), duration(300), duration(9000)
    ('1 s', '42 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
