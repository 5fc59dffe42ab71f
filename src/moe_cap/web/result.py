"""The page of one result: every number with unit and source, how it was obtained, and how to repeat it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from pydantic import JsonValue

from moe_cap.board import row_id
from moe_cap.board.columns import BY_FIELD
from moe_cap.board.payload import show_load
from moe_cap.metrics.cost import Basis
from moe_cap.offerings import ENGINES
from moe_cap.quantity import QUANTITIES, Quantity, QuantitySpec
from moe_cap.result import Point, Result
from moe_cap.routing import RoutingSource
from moe_cap.web.charts import Curve, HeatMap, draw_distinct_experts, draw_heat_map
from moe_cap.web.pages import render
from moe_cap.web.radar import MAX_SHAPES, axes_on, draw, shapes_of

SOURCES = {
    "measured": "read from a clock or a counter",
    "derived": "computed by a formula from measured values",
    "estimated": "from a model that the note names",
    "reported": "taken from the cited source",
}
ROUTING = {
    RoutingSource.ENGINE_STEP: "the engine told which tokens shared a step",
    RoutingSource.LOCK_STEP: "a fixed batch started together: step t is the t-th tokens",
    RoutingSource.REPLAY: "recorded in a second pass over the same tokens; the timed pass gives the steps",
    RoutingSource.UNIFORM: "no trace: the expectation under uniform routing",
}
TILES = (
    "output_tokens_per_s", "tpot_s_p50", "ttft_s_p50", "decode_s_mbu", "decode_s_mfu", "purchase_usd",
    "usd_per_million_output_tokens_owner", "j_per_output_token",
)  # fmt: skip
_ABSENT: tuple[JsonValue, ...] = (None, {}, [], "")
PARALLEL = {"tensor_parallel", "expert_parallel", "data_parallel", "pipeline_parallel"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One number as it is read: text with unit, where it comes from, and what to know beside it."""

    text: str | None
    unit: str
    source: str
    reason: str | None
    note: str | None
    interval: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity over all points of the result; a cell is None where a point does not hold it."""

    title: str
    meaning: str
    cells: tuple[Cell | None, ...]


def cell_of(name: str, quantity: Quantity | None) -> Cell | None:
    """Write one quantity in the unit of its column."""
    if quantity is None:
        return None
    column = BY_FIELD[name]
    value, spread = quantity.value, quantity.interval_95
    return Cell(
        text=None if value is None else column.show(value),
        unit=column.unit,
        source=quantity.source,
        reason=quantity.reason,
        note=quantity.note,
        interval=None if spread is None else f"± {column.show(spread)}",
    )


def groups_of(result: Result) -> Iterator[tuple[str, list[Line]]]:
    """The quantities that any point holds, by group, in the order of `QUANTITIES`."""
    held = {name for point in result.points for name in point.quantities}
    grouped: dict[str, list[Line]] = {}
    for spec in (spec for spec in QUANTITIES.values() if spec.name in held):
        grouped.setdefault(spec.group, []).append(_line(spec, result.points))
    yield from ((group.capitalize(), lines) for group, lines in grouped.items())


def _line(spec: QuantitySpec, points: tuple[Point, ...]) -> Line:
    cells = tuple(cell_of(spec.name, point.quantities.get(spec.name)) for point in points)
    return Line(BY_FIELD[spec.name].title, spec.meaning, cells)


def tiles_of(point: Point) -> list[tuple[str, Cell]]:
    """The figures that people look for first, those that this point knows."""
    named = [(BY_FIELD[name].title, cell_of(name, point.quantities.get(name))) for name in TILES]
    return [(title, cell) for title, cell in named if cell is not None and cell.text is not None]


def facts_of(values: Mapping[str, JsonValue]) -> list[tuple[str, str]]:
    """Names and values for reading, in SI as stored; what is absent is left out."""
    return [(name.replace("_", " "), show_value(value)) for name, value in values.items() if value not in _ABSENT]


def show_value(value: JsonValue) -> str:
    r"""One stored value as text: thousands separated, a mapping as one line for each of its entries.

    >>> show_value(25276510208.0), show_value(True), show_value({"a_b": 1, "c": "x"})
    ('25,276,510,208', 'yes', 'a b: 1\\nc: x')
    """
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer():
            return f"{int(value):,}"
        case int() | float():
            return f"{value:,}"
        case dict():
            return "\n".join(f"{name.replace('_', ' ')}: {show_value(entry)}" for name, entry in value.items())
        case list():
            return ", ".join(map(show_value, value))
        case _:
            return "n/a" if value is None else str(value)


def render_result(result: Result, table: pd.DataFrame, chosen: int) -> str:
    """Return the page; `chosen` is the point whose figures stand at the top, the first if there is no such one."""
    at = chosen if 0 <= chosen < len(result.points) else 0
    point = result.points[at]
    rows = table[table["result"] == result.id].to_dict("records")
    axes = axes_on(Basis.PAPER if pd.notna(rows[at]["purchase_usd"]) else Basis.OWNER)
    shapes = shapes_of(table, [row_id(result.id, index) for index in range(min(len(rows), MAX_SHAPES))], axes)
    return render(
        "result.html",
        result=result,
        at=at,
        point=point,
        row=rows[at],
        accuracy=_accuracy(rows[at]),
        loads=[show_load(row) for row in rows],
        tiles=tiles_of(point),
        groups=list(groups_of(result)),
        shapes=shapes,
        drawing=draw(shapes, axes),
        heat=heat_of(point),
        curve=curve_of(point),
        sources=SOURCES,
        routing=ROUTING.get(point.routing_source) if point.routing_source else None,
        offer=ENGINES.get(result.engine.name or ""),
        facts=_facts(result, point),
        submission=result.submission,
        assumptions=facts_of(result.assumptions),
        environment=facts_of(result.environment),
    )


def _accuracy(row: Mapping[Hashable, object]) -> str | None:
    value = row["accuracy"]
    return BY_FIELD["accuracy"].show(value) if isinstance(value, float) else None


def _facts(result: Result, point: Point) -> list[tuple[str, list[tuple[str, str]]]]:
    parts = {"Model": result.model, "Engine": result.engine, "Hardware": result.hardware, "Load": point.load}
    # A source tells nothing of parallelism, so the defaults of the record are no facts.
    unknown = PARALLEL if result.kind == "reported" else set()
    return [(title, facts_of(part.model_dump(mode="json", exclude=unknown))) for title, part in parts.items()]


def heat_of(point: Point) -> HeatMap | None:
    """Tokens per expert and layer, where the record has them."""
    return draw_heat_map(point.expert_tokens) if point.expert_tokens else None


def curve_of(point: Point) -> Curve | None:
    """Distinct experts by batch size, where the record has them together with the number of experts."""
    if not point.activated_by_batch_size or not point.expert_tokens:
        return None
    return draw_distinct_experts(point.activated_by_batch_size, len(point.expert_tokens[0]))


def render_missing(result_id: str) -> str:
    """Return the page for an id that is not there."""
    return render("missing.html", result_id=result_id)
