"""What a profile measured, drawn against its loads: throughput, S-MBU and, where routing is known, the experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from plotly.graph_objects import Figure, Scatter

from moe_cap.measure.job import replace_file
from moe_cap.measure.profile.experts_plot import Curve, draw_distinct_experts, draw_expert_tokens
from moe_cap.measure.profile.page import Panel, draw_page, lay_out, logarithmic, stroke
from moe_cap.measure.profile.report import label
from moe_cap.measure.profile.run import Outcome
from moe_cap.result import Point

PLOTS = "plots.html"
LONGEST_NOTE = 220


class Drawn(NamedTuple):
    """A quantity over the loads; `scale` is the drawn value over the canonical one."""

    quantity: str
    title: str
    scale: float


DRAWN = (
    Drawn("output_tokens_per_s", "Output tokens per second", 1.0),
    Drawn("decode_s_mbu", "Decode S-MBU [%]", 100.0),
)


class Axis(NamedTuple):
    """What the loads differ in; `unit` follows a value in a sentence, `other` is said where nothing was measured."""

    title: str
    against: str
    unit: str
    other: str


CLOSED = Axis("requests in flight", "by requests in flight", "in flight", "nothing was measured")
OPEN = Axis("requests per second, as sent", "by request rate", "requests/s", "the load has no rate: one moment")


class Series(NamedTuple):
    """The line of a cell: its loads by their place on the x axis."""

    name: str
    points: tuple[tuple[float, Point], ...]


def draw(outcomes: Sequence[Outcome]) -> list[Panel]:
    """One panel per quantity, a line per cell in each; then the experts, where a cell knows them."""
    axis, lines = _series(outcomes)
    return [*(_quantity(drawn, axis, lines) for drawn in DRAWN), *_experts(axis, lines)]


def write_plots(outcomes: Sequence[Outcome], output: Path) -> Path:
    """Write the page; its script is inside it."""
    path = output / PLOTS
    legend = [(line.name, stroke(index)) for index, line in enumerate(_series(outcomes)[1])]
    replace_file(path, draw_page(_title(outcomes), legend, draw(outcomes)).encode())
    return path


def _title(outcomes: Sequence[Outcome]) -> str:
    result = next(outcome.result for outcome in outcomes if outcome.result)
    engine = " ".join(filter(None, (result.engine.name, result.engine.version)))
    hardware = result.hardware
    return f"{result.model.name}, {engine}, {hardware.num_devices} x {hardware.device_name}"


def _series(outcomes: Sequence[Outcome]) -> tuple[Axis, list[Series]]:
    """Every cell that was measured; all cells of a profile have loads of the same kind."""
    measured = [(outcome, outcome.result.points) for outcome in outcomes if outcome.result]
    opened = any(point.load.kind == "open_loop" for _, points in measured for point in points)
    lines = [
        Series(label(outcome), tuple(sorted(_placed(points, opened=opened), key=lambda placed: placed[0])))
        for outcome, points in measured
    ]
    return (OPEN if opened else CLOSED), lines


def _placed(points: Sequence[Point], *, opened: bool) -> Iterator[tuple[float, Point]]:
    for point in points:
        place = point.load.request_rate_per_s if opened else point.load.concurrency
        if place is not None:
            yield place, point


def value_of(point: Point, name: str) -> float | None:
    """The number, if it is known and the point is valid."""
    quantity = point.quantities.get(name)
    return None if quantity is None or point.invalid else quantity.value


def _quantity(drawn: Drawn, axis: Axis, lines: Sequence[Series]) -> Panel:
    figure = Figure()
    for index, line in enumerate(lines):
        known = [(x, point) for x, point in line.points if value_of(point, drawn.quantity) is not None]
        figure.add_trace(_line(drawn, line.name, known, index))
    figure.update_xaxes(title=axis.title, **logarithmic(x for line in lines for x, _ in line.points))
    figure.update_yaxes(rangemode="tozero")
    if not any(trace.x for trace in figure.data):
        figure.update_yaxes(range=[0, 1], showticklabels=False, showgrid=False)
        figure.add_annotation(text="no value", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    return Panel(f"{drawn.title} {axis.against}", lay_out(figure), missing(drawn.quantity, axis, lines))


def _line(drawn: Drawn, name: str, known: Sequence[tuple[float, Point]], index: int) -> Scatter:
    """Bars are the 95 % interval over repeats; without repeats there is none."""
    quantities = [point.quantities[drawn.quantity] for _, point in known]
    spread = [(quantity.interval_95 or 0.0) * drawn.scale for quantity in quantities]
    look = stroke(index)
    return Scatter(
        x=[x for x, _ in known],
        y=[(quantity.value or 0.0) * drawn.scale for quantity in quantities],
        error_y={"type": "data", "array": spread, "visible": any(spread), "thickness": 1.5, "width": 5},
        mode="lines+markers",
        name=name,
        line={"color": look.colour, "dash": look.dash},
    )


def missing(name: str, axis: Axis, lines: Sequence[Series]) -> str:
    """Which loads have no point in a panel, and why; empty where all have one."""
    absent: dict[str, list[str]] = {}
    for line in lines:
        for x, point in line.points:
            if value_of(point, name) is None:
                where = f"{x:.3g} {axis.unit}" + (f" ({line.name})" if len(lines) > 1 else "")
                absent.setdefault(_reason(point, name), []).append(where)
    total = sum(len(line.points) for line in lines)
    if total == 0:
        return f"No point: {axis.other}."
    return " ".join(f"No point {_places(where, total)}: {reason}." for reason, where in absent.items())


def _reason(point: Point, name: str) -> str:
    quantity = point.quantities.get(name)
    told = f"invalid, {'; '.join(point.invalid)}" if point.invalid else quantity.reason if quantity else None
    return shorten(told or "not measured", LONGEST_NOTE, placeholder=" ...").rstrip(".")


def _places(where: Sequence[str], total: int) -> str:
    if len(where) == total:
        return "at any load"
    return "at " + ", ".join(where[:3]) + (f" and {len(where) - 3} more loads" if len(where) > 3 else "")


def _experts(axis: Axis, lines: Sequence[Series]) -> Iterator[Panel]:
    """Of every cell the trace with the most sequences, and the counts of the largest load of all."""
    curves, traced = [], []
    for index, line in enumerate(lines):
        known = [(x, point) for x, point in line.points if point.expert_tokens and point.activated_by_batch_size]
        traced += [(x, line.name, point) for x, point in known]
        if known:
            longest = max((point.activated_by_batch_size or {} for _, point in known), key=len)
            curves.append(Curve(line.name, longest, stroke(index)))
    if not traced:
        return
    x, name, point = max(traced, key=lambda told: told[0])
    tokens = point.expert_tokens or ()
    yield draw_distinct_experts(curves, len(tokens[0]), _top_k(curves))
    yield draw_expert_tokens(tokens, f"At {x:.3g} {axis.unit}, {name}, prompts included.")


def _top_k(curves: Sequence[Curve]) -> int | None:
    """What one sequence alone uses in each layer; None where that differs between layers or was not traced."""
    alone = {curve.by_batch_size.get(1) for curve in curves}
    value = alone.pop() if len(alone) == 1 else None
    return int(value) if value is not None and value.is_integer() else None
