"""Throughput and S-MBU against the batch, as one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from moe_cap.measure.job import replace_file
from moe_cap.measure.profile.report import label
from moe_cap.measure.profile.run import Outcome
from moe_cap.result import Point

PLOTS = "plots.html"
DRAWN = (("output_tokens_per_s", "output tokens per second", 1.0), ("decode_s_mbu", "decode S-MBU [%]", 100.0))
COLOURS = ("#1f6fb4", "#d1662f", "#2a9d6f", "#8a5fb0", "#b8952d", "#6b6b6b", "#c0446f", "#3b9ab2")


def draw(outcomes: Sequence[Outcome]) -> Figure:
    """Two panels over the concurrency of closed loops, one line per cell; what is not known has no point."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=[title for _, title, _ in DRAWN])
    for index, outcome in enumerate(outcomes):
        closed = [point for point in (outcome.result.points if outcome.result else ()) if point.load.concurrency]
        for column, (quantity, _, scale) in enumerate(DRAWN, start=1):
            known = [(point, value) for point in closed if (value := value_of(point, quantity)) is not None]
            line = Scatter(
                x=[point.load.concurrency for point, _ in known],
                y=[value * scale for _, value in known],
                mode="lines+markers",
                name=label(outcome),
                legendgroup=outcome.cell.fingerprint,
                showlegend=column == 1,
                line={"color": COLOURS[index % len(COLOURS)]},
            )
            figure.add_trace(line, row=1, col=column)
    for column, reason in enumerate((missing(outcomes, quantity) for quantity, _, _ in DRAWN), start=1):
        if reason is not None:
            figure.add_annotation(
                text=reason, row=1, col=column, x=0.5, y=0.5, xref="x domain", yref="y domain", showarrow=False
            )
    figure.update_xaxes(title="requests in flight", type="log", dtick="D2")
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(template="plotly_white", legend={"orientation": "h", "y": -0.25}, height=480)
    return figure


def value_of(point: Point, name: str) -> float | None:
    """The number, if it is known and the point is valid."""
    quantity = point.quantities.get(name)
    return None if quantity is None or point.invalid else quantity.value


def missing(outcomes: Sequence[Outcome], name: str) -> str | None:
    """Why a panel is empty; None if it is not."""
    points = [point for outcome in outcomes if outcome.result for point in outcome.result.points]
    if any(point.load.concurrency and value_of(point, name) is not None for point in points):
        return None
    reasons = [point.quantities[name].reason for point in points if name in point.quantities]
    return next((reason for reason in reasons if reason), "no closed loop was measured")


def write_plots(outcomes: Sequence[Outcome], output: Path) -> Path:
    """Write the page; its script is inside it."""
    path = output / PLOTS
    page = draw(outcomes).to_html(include_plotlyjs=True, full_html=True, div_id="profile")
    replace_file(path, page.encode())
    return path
