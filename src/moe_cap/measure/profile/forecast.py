"""How long a profile still takes, from what it has measured itself: never from a guess, never from cells it kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

REPEAT = re.compile(r" \(\d+/\d+\)$")
LOADED = frozenset({"warm-up", "timing", "routing", "accuracy"})
"""Stages that take longer the more is asked of them; the others take what they took the last time."""
Plan = Mapping[str, float]
"""Work of every stage of a cell, in any unit, in order."""


@dataclass(frozen=True, slots=True)
class Left:
    """Seconds that are left; `whole` is False where stages of a kind that was not measured yet come on top."""

    seconds: float
    whole: bool


@dataclass(slots=True)
class Rate:
    """What the stages of one name took together."""

    work: float = 0.0
    seconds: float = 0.0

    def add(self, work: float, seconds: float) -> None:
        """One more stage."""
        self.work += work
        self.seconds += seconds


class Forecast:
    """Listens to the stages of cell after cell.

    Args:
        plans: of the cells that are measured, in order; kept ones are none of them.
        clock: seconds, monotonic.
    """

    def __init__(self, plans: Sequence[Plan], clock: Callable[[], float]) -> None:
        self._later = list(plans)
        self._clock = clock
        self._began_s = clock()
        self._ahead: dict[str, float] = {}
        self._planned = self._finished = self._work = 0.0
        self._stage: str | None = None
        self._share: float | None = None
        self._entered_s = self._began_s
        self._rates: dict[str, Rate] = {}
        self._fixed_s: dict[str, float] = {}

    def begin_cell(self) -> None:
        """The next cell is measured from here on; a stage that was under way had failed and is not learnt from."""
        self._ahead = dict(self._later.pop(0))
        self._planned, self._finished, self._work = sum(self._ahead.values()), 0.0, 0.0
        self._stage = None

    def hear(self, stage: str, fraction: float | None) -> bool:
        """Where the cell stands, `fraction` of its planned work behind it; whether a stage began with that."""
        if stage == self._stage:
            if fraction is not None and self._work:
                self._share = (fraction * self._planned - self._finished) / self._work
            return False
        self.leave()
        self._finished += self._work
        self._work = self._ahead.pop(stage, 0.0)
        self._stage, self._share, self._entered_s = stage, None, self._clock()
        return True

    def leave(self) -> None:
        """The stage is done; what it took is known now."""
        if self._stage is None:
            return
        took_s = self._clock() - self._entered_s
        for key in _keys(self._stage):
            self._rates.setdefault(key, Rate()).add(self._work, took_s)
        self._fixed_s[self._stage] = took_s
        self._stage = None

    def in_stage_s(self) -> float:
        """How long the stage has been going on."""
        return self._clock() - self._entered_s

    def left(self) -> Left | None:
        """What can be told; None before a timed stage has ended, or tells how far it is."""
        if self._rate("timing") is None:
            return None
        told = [self._rest_of_stage()]
        told += [self._duration(stage, work) for plan in (self._ahead, *self._later) for stage, work in plan.items()]
        return Left(sum(seconds or 0.0 for seconds in told), None not in told)

    def done_share(self) -> float | None:
        """Share of this run's time that is over, 0..1; None where the whole is not known."""
        left = self.left()
        over_s = self._clock() - self._began_s
        return over_s / (over_s + left.seconds) if left and left.whole and over_s else None

    def _rest_of_stage(self) -> float | None:
        """None where the stage takes longer than it should by now, and does not say how far it is."""
        if self._stage is None:
            return 0.0
        since_s = self.in_stage_s()
        if self._share is not None and self._share > 0:
            return since_s * (1 - self._share) / self._share
        expected_s = self._duration(self._stage, self._work)
        return None if expected_s is None or expected_s < since_s else expected_s - since_s

    def _duration(self, stage: str, work: float) -> float | None:
        """By stages of this very name, else by all of their kind; None where there was none."""
        if _kind(stage) not in LOADED:
            return self._fixed_s.get(stage, 0.0)
        rate = next((found for key in _keys(stage) if (found := self._rate(key))), None)
        return None if rate is None or not rate.work else work * rate.seconds / rate.work

    def _rate(self, key: str) -> Rate | None:
        """What the stages learnt under `key` took; the one under way stands in for the first as far as it is."""
        if key in self._rates:
            return self._rates[key]
        if self._stage is None or not self._share or key not in _keys(self._stage):
            return None
        return Rate(self._work * self._share, self.in_stage_s())


def _kind(stage: str) -> str:
    return stage.partition(" ")[0]


def _keys(stage: str) -> tuple[str, str]:
    """What a stage is learnt under: its load whatever the repetition, and its kind whatever the load."""
    return REPEAT.sub("", stage), _kind(stage)
