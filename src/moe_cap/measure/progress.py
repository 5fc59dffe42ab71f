"""Where a run stands, for whoever watches its file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

log = logging.getLogger("moe_cap")

Tell = Callable[[str, float | None, float | None], None]
"""Stage, share of the whole that is done (0..1), seconds left; None where nothing is promised."""

Report = Callable[[float], None]
"""Told the share of a stage that is done, 0..1."""


def by_percent(report: Report) -> Report:
    """The same, told a hundred times at most: a file is written each time, by a client that has requests to send."""
    told = 0.0

    def tell(share: float) -> None:
        nonlocal told
        if share >= told + 0.01 or share >= 1:
            told = share
            report(share)

    return tell


class Progress:
    """Announces stages, and estimates what is left from what the finished ones took.

    Args:
        path: JSON file {"stage", "fraction", "eta_s"}, replaced whole: no reader sees half of it; None: log only.
        clock: seconds, monotonic.
        tell: told the same as the file, for whoever watches in this process.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float], tell: Tell | None = None) -> None:
        self._path = path
        self._clock = clock
        self._tell = tell
        self._started_s = clock()
        self._weights: dict[str, float] = {}
        self._done = 0.0
        self._stage: str | None = None

    def plan(self, weights: Mapping[str, float]) -> None:
        """Announce every stage and its share of the whole, in any unit."""
        self._weights = dict(weights)

    def enter(self, stage: str) -> None:
        """The stage before has ended, this one begins."""
        if self._stage is not None:
            self._done += self._weights.get(self._stage, 0.0)
        self._stage = stage
        log.info("%s", stage)
        self._write(0.0)

    def within(self, share: float) -> None:
        """How much of the current stage is done, 0..1."""
        self._write(share)

    def _write(self, share: float) -> None:
        if self._stage is None:
            return
        total = sum(self._weights.values())
        done = self._done + share * self._weights.get(self._stage, 0.0)
        fraction = min(done / total, 1.0) if total else None
        elapsed_s = self._clock() - self._started_s
        eta_s = elapsed_s * (1 - fraction) / fraction if fraction else None
        if self._tell is not None:
            self._tell(self._stage, fraction, eta_s)
        if self._path is None:
            return
        body = {"stage": self._stage, "fraction": fraction, "eta_s": eta_s}
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(body), encoding="utf-8")
        temporary.replace(self._path)
