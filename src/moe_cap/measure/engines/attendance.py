"""What attends a timed load: a window of counters around it, and whoever wants to know how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


def unheard(share: float) -> None:
    """Nobody wants to know how far a load is."""


@dataclass(frozen=True, slots=True)
class Attendance:
    """What goes on beside a timed load, by whoever knows when exactly it begins and ends.

    Attributes:
        window: entered right before the first send and left right after the last end, with nothing else in between.
        report: told the share of the requests that is over, 0..1.
    """

    window: Callable[[], AbstractContextManager[None]] = nullcontext
    report: Callable[[float], None] = unheard


@runtime_checkable
class AttendedSession(Protocol):
    """A session whose passes are more than their load: one behind a server encodes, reads answers and counters too."""

    def attended(self, attendance: Attendance) -> AbstractContextManager[None]:
        """Attend the one load that is carried inside."""
