"""Figures of a printed table: how sure each is, and which of a column cannot be told from its best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from moe_cap.metrics.student_t import Interval
from moe_cap.quantity import Better


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of a column.

    Attributes:
        value: in the column's unit.
        half_width: half of its 95 % interval, in the same unit; None where nobody knows it, as without repeats.
        valid: whether its load broke no rule; others are the best of no column.
        ties: its interval meets that of the best of the column, which is another one.
    """

    value: float
    half_width: float | None
    valid: bool = True
    ties: bool = False

    @property
    def interval(self) -> Interval:
        """A figure without an interval counts as a point."""
        return Interval(self.value, self.half_width or 0.0)


def mark_ties(column: Sequence[Figure | None], better: Better) -> list[Figure | None]:
    """The column with its ties marked, as the board names them (docs/results.md)."""
    ranked = [figure for figure in column if figure is not None and figure.valid]
    if better == "neither" or not ranked:
        return list(column)
    best = (max if better == "higher" else min)(ranked, key=attrgetter("value"))
    return [
        figure if figure is None or figure is best else replace(figure, ties=_is_level(figure, best))
        for figure in column
    ]


def _is_level(figure: Figure, best: Figure) -> bool:
    return figure.valid and figure.half_width is not None and figure.interval.overlaps(best.interval)
