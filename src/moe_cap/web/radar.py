"""The CAP radar as SVG: fixed scales, so that adding a system moves no other one; raw values in hover and legend."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import pandas as pd
from markupsafe import Markup

from moe_cap.board.columns import BY_FIELD
from moe_cap.board.payload import show_load
from moe_cap.errors import InvalidInputError
from moe_cap.metrics.cap import COST_AXIS, SCALES, Axis, Scale, cap_axes, radar_axes
from moe_cap.metrics.cost import Basis
from moe_cap.web.pages import render

BASES = {"purchase": Basis.PAPER, "owner": Basis.OWNER, "rental": Basis.RENTAL}
_ALWAYS = {axis for basis in Basis for axis in cap_axes(basis)}
MORE_AXES = tuple(name for name, scale in SCALES.items() if name not in _ALWAYS and not scale.unit.startswith("USD"))
"""What may stand beside cost, accuracy and performance; never a second cost."""
MAX_SHAPES = 5
"""The style sheet has as many colours, and the grid lets nobody select more."""
RADIUS = 100.0
RINGS = (0.25, 0.5, 0.75, 1.0)
OVERLAP = 0.06
"""Marks of one axis that are nearer than this cannot be pointed at one by one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One system on one axis: place 0..1 from the centre or None, raw value with unit, and the scale in words."""

    title: str
    place: float | None
    shown: str
    note: str


@dataclass(frozen=True, slots=True)
class Shape:
    """One system on the radar: where it stands on every axis, and what it is called."""

    row: str
    result: str
    title: str
    detail: str
    cap_class: str | None
    cap_class_reason: str | None
    invalid: str | None
    marks: tuple[Mark, ...]

    @property
    def name(self) -> str:
        """What it is called where no badge stands beside it."""
        return f"{self.title}, invalid" if self.invalid else self.title


def axes_on(basis: Basis, more: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the axes: cost on one basis, accuracy, performance, and those asked for beside them."""
    return (*cap_axes(basis), *(name for name in more if name in MORE_AXES))


def draw_rows(table: pd.DataFrame, wanted: Sequence[str], axes: Sequence[str]) -> Markup:
    """Radar and legend of these rows, in this order; of one system per class when none is wanted."""
    rows = [name for name in wanted if (table["row"] == name).any()]
    shapes = shapes_of(table, rows or _examples(table), axes)
    return render(
        "radar.html",
        examples=not rows,
        shapes=shapes,
        drawing=draw(shapes, axes),
        scales=scales_of(axes),
        bases=[(name, COST_AXIS[basis] in axes) for name, basis in BASES.items()],
        more=[(name, SCALES[name].title, name in axes) for name in MORE_AXES],
    )


def _examples(table: pd.DataFrame) -> list[str]:
    """The first valid row of each class."""
    classed = table[table["valid"]].dropna(subset="cap_class").drop_duplicates("cap_class")
    return [str(name) for name in classed["row"]]


def shapes_of(table: pd.DataFrame, rows: Sequence[str], axes: Sequence[str]) -> list[Shape]:
    """What the radar draws of these rows, which must be there."""
    records = table.set_index("row", drop=False).astype(object).to_dict("index")
    return [_shape(records[name], axes) for name in rows]


def mark_of(name: str, raw: float | None) -> Mark:
    """Where a value stands on its axis; a value that is impossible there has no place and says so."""
    scale, column = SCALES[name], BY_FIELD[name]
    try:
        axis = radar_axes({name: raw}, [name])[0]
    except InvalidInputError as error:
        return Mark(scale.title, None, "n/a", str(error))
    shown = "n/a" if raw is None else f"{column.show(raw)} {column.unit}".strip()
    return Mark(scale.title, axis.shown, shown, _note(scale, axis))


def _note(scale: Scale, axis: Axis) -> str:
    beyond = " Outside of the scale, drawn at its end." if axis.clipped else ""
    return describe_scale(scale) + beyond


def describe_scale(scale: Scale) -> str:
    """One sentence on how the axis runs."""
    if scale.reference is None:
        return "From 0 in the centre to 100 %."
    column = BY_FIELD[scale.name]
    middle = f"{column.show(scale.reference)} {column.unit}"
    return f"Logarithmic, {scale.better} is better; half way out is {middle}: {scale.anchor}."


def scales_of(axes: Sequence[str]) -> list[tuple[str, str]]:
    """Title and description of each axis, for the note under the drawing."""
    return [(SCALES[name].title, describe_scale(SCALES[name])) for name in axes]


def _shape(row: Mapping[Hashable, object], axes: Sequence[str]) -> Shape:
    def text(name: str) -> str | None:
        return None if pd.isna(row[name]) else str(row[name])  # type: ignore[call-overload]

    def number(name: str) -> float | None:
        value = row[name]
        return value if isinstance(value, float) and not math.isnan(value) else None

    parts = (text("engine") or "engine not stated", text("precision"), f"{row['num_devices']} × {row['device_name']}")
    return Shape(
        row=str(row["row"]),
        result=str(row["result"]),
        title=str(row["model"]),
        detail=" · ".join(part for part in (*parts, show_load(row)) if part),
        cap_class=text("cap_class"),
        cap_class_reason=text("cap_class_reason"),
        invalid=text("invalid"),
        marks=tuple(mark_of(name, number(name)) for name in axes),
    )


def corner(place: float, axis: int, axes: int) -> tuple[float, float]:
    """Point on the drawing, centre (0, 0), y down, first axis up.

    >>> corner(1.0, 0, 3)
    (0.0, -100.0)
    """
    angle = 2 * math.pi * axis / axes
    return round(RADIUS * place * math.sin(angle), 2) + 0.0, round(-RADIUS * place * math.cos(angle), 2) + 0.0


@dataclass(frozen=True, slots=True)
class Spot:
    """A place that can be pointed at, and everything that stands there: number of the series, system, mark."""

    x: float
    y: float
    entries: tuple[tuple[int, Shape, Mark], ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Geometry for the template: rings and spokes of the web, one outline and its dots per system, spots over them."""

    rings: tuple[str, ...]
    spokes: tuple[tuple[float, float], ...]
    labels: tuple[tuple[str, float, float, str], ...]
    outlines: tuple[str, ...]
    dots: tuple[tuple[int, float, float], ...]
    spots: tuple[Spot, ...]
    height: int


def draw(shapes: Sequence[Shape], axes: Sequence[str]) -> Drawing:
    """Lay out the radar; on an axis where a system is unknown it has no mark, and its outline goes around it."""
    count = len(axes)
    points = [
        [corner(mark.place, at, count) for at, mark in enumerate(shape.marks) if mark.place is not None]
        for shape in shapes
    ]
    return Drawing(
        rings=tuple(_outline([corner(ring, at, count) for at in range(count)]) for ring in RINGS),
        spokes=tuple(corner(1.0, at, count) for at in range(count)),
        labels=tuple((SCALES[name].title, *_label(at, count)) for at, name in enumerate(axes)),
        outlines=tuple(_outline(corners) for corners in points),
        dots=tuple((series, x, y) for series, corners in enumerate(points, 1) for x, y in corners),
        spots=tuple(spot for at in range(count) for spot in _spots(shapes, at, count)),
        height=200 if count == 3 else 244,  # a triangle that stands on its side leaves the lower quarter free
    )


def _spots(shapes: Sequence[Shape], axis: int, axes: int) -> Iterator[Spot]:
    """Marks of one axis from the centre outwards; those that lie upon each other share a spot."""
    marks = [(series, shape, shape.marks[axis]) for series, shape in enumerate(shapes, 1)]
    known = [(mark.place, series, shape, mark) for series, shape, mark in marks if mark.place is not None]
    known.sort(key=itemgetter(0, 1))
    group: list[tuple[float, int, Shape, Mark]] = []
    for entry in known:
        if group and entry[0] - group[0][0] > OVERLAP:
            yield _spot(group, axis, axes)
            group = []
        group.append(entry)
    if group:
        yield _spot(group, axis, axes)


def _spot(group: Sequence[tuple[float, int, Shape, Mark]], axis: int, axes: int) -> Spot:
    x, y = corner(sum(place for place, *_ in group) / len(group), axis, axes)
    return Spot(x, y, tuple((series, shape, mark) for _, series, shape, mark in group))


def _outline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _label(axis: int, axes: int) -> tuple[float, float, str]:
    x, y = corner(1.12, axis, axes)
    if abs(x) < RADIUS / 10:
        return 0.0, round(y + (0 if y < 0 else 8), 1), "middle"
    inner = axes == 3  # the lower corners of the triangle have room below them only
    return (math.copysign(RADIUS * 0.9, x), y + 8, "middle") if inner else (x, y + 3, "start" if x > 0 else "end")
