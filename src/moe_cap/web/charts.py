"""Small drawings of one result, laid out here and drawn by the templates as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CELL = 10.0
WIDTH, HEIGHT = 320.0, 190.0


@dataclass(frozen=True, slots=True)
class HeatCell:
    """One expert of one layer: place, strength 0..1 of the busiest expert, and words."""

    x: float
    y: float
    strength: float
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Tokens per expert and layer; layers go down, experts to the right."""

    layers: int
    experts: int
    cells: tuple[HeatCell, ...]
    busiest_over_even: float
    """Tokens of the busiest expert over what an even spread would give it."""


def draw_heat_map(tokens: Sequence[Sequence[int]]) -> HeatMap:
    """Lay out token counts [layers][experts]."""
    busiest = max((count for layer in tokens for count in layer), default=0)
    uneven = max((max(layer) * len(layer) / sum(layer) for layer in tokens if sum(layer)), default=0.0)
    cells = tuple(
        HeatCell(expert * CELL, layer * CELL, round(count / busiest, 3) if busiest else 0.0,
                 f"layer {layer}, expert {expert}: {count:,} tokens")
        for layer, counts in enumerate(tokens)
        for expert, count in enumerate(counts)
    )  # fmt: skip
    return HeatMap(len(tokens), max((len(layer) for layer in tokens), default=0), cells, uneven)


@dataclass(frozen=True, slots=True)
class Curve:
    """A line over a logarithmic x axis that begins at y = 0."""

    points: tuple[tuple[float, float, str], ...]
    path: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def draw_distinct_experts(by_batch_size: Mapping[int, float], num_experts: int) -> Curve:
    """Lay out mean distinct experts per layer over the batch size, up to all `num_experts`."""
    sizes = sorted(by_batch_size)
    span = max(math.log2(sizes[-1]), 1.0)

    def place(size: int, experts: float) -> tuple[float, float]:
        return round(math.log2(size) / span * WIDTH, 1), round(HEIGHT * (1 - experts / num_experts), 1)

    points = tuple(
        (*place(size, by_batch_size[size]), f"batch {size}: {by_batch_size[size]:.1f} of {num_experts} experts")
        for size in sizes
    )
    return Curve(
        points=points,
        path="M" + " L".join(f"{x},{y}" for x, y, _ in points),
        x_ticks=tuple((place(size, 0)[0], str(size)) for size in sizes),
        y_ticks=tuple((HEIGHT * (1 - part), f"{num_experts * part:g}") for part in (0.0, 0.5, 1.0)),
    )
