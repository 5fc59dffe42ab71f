"""What is made of a profile's results: one table, canonical for programs and short for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pandas as pd

from moe_cap.board import export, frame
from moe_cap.board.columns import SPREADS
from moe_cap.board.frame import accuracy_of
from moe_cap.measure.job import replace_file
from moe_cap.measure.profile.figures import Figure, mark_ties
from moe_cap.measure.profile.run import Outcome
from moe_cap.quantity import QUANTITIES
from moe_cap.result import Point, Result

TABLE = "table.csv"


@dataclass(frozen=True, slots=True)
class Shown:
    """A column of the printed table; `scale` is the shown value over the canonical one."""

    title: str
    quantity: str
    scale: float = 1.0


SHOWN = (
    Shown("output tok/s", "output_tokens_per_s"),
    Shown("TTFT p50 [ms]", "ttft_s_p50", 1e3),
    Shown("TPOT p50 [ms]", "tpot_s_p50", 1e3),
    Shown("TPOT p99 [ms]", "tpot_s_p99", 1e3),
    Shown("goodput [1/s]", "goodput_requests_per_s"),
    Shown("S-MBU decode [%]", "decode_s_mbu", 100.0),
    Shown("experts/layer", "decode_activated_experts"),
    Shown("power [W]", "power_w"),
    Shown("USD/Mtok out", "usd_per_million_output_tokens_owner"),
)


def points(outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Result, Point]]:
    """Every measured load, with the cell that it belongs to."""
    for outcome in outcomes:
        if outcome.result is not None:
            yield from ((outcome, outcome.result, point) for point in outcome.result.points)


def rate_asked(result: Result, point: Point) -> float | None:
    """Requests per second that an open loop was asked for; None for any other load."""
    arrivals = result.submission.arrivals if result.submission else None
    if arrivals is None or not arrivals.rates_per_s:
        return None
    return arrivals.rates_per_s[next(at for at, each in enumerate(result.points) if each is point)]


def table(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """The canonical table of the board, behind columns for what was swept and for the engine's arguments."""
    rows = list(points(outcomes))
    names = list(dict.fromkeys(name for outcome in outcomes for name in outcome.cell.swept))
    columns: dict[str, Callable[[Outcome], object]] = {
        "cell": lambda outcome: outcome.cell.name,
        **{name: lambda outcome, name=name: outcome.cell.swept.get(name) for name in names},  # type: ignore[misc]
        "engine_arguments": lambda outcome: " ".join(outcome.cell.arguments),
    }
    canonical = frame(outcome.result for outcome in outcomes if outcome.result is not None)
    prefixed = {name if name not in canonical else f"swept_{name}": read for name, read in columns.items()}
    swept = pd.DataFrame({name: [read(outcome) for outcome, _, _ in rows] for name, read in prefixed.items()})
    return pd.concat([swept, canonical], axis=1)


def write_table(outcomes: Sequence[Outcome], output: Path) -> Path:
    """Write the table as CSV: canonical names, SI units, every digit."""
    path = output / TABLE
    replace_file(path, export(table(outcomes), "csv"))
    return path


def _shown(outcomes: Sequence[Outcome]) -> list[Shown]:
    """The columns; goodput where somebody set objectives."""
    asked = any(outcome.cell.submission.objectives for outcome in outcomes)
    return [shown for shown in SHOWN if asked or shown.quantity != "goodput_requests_per_s"]


def headings(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Of the printed table."""
    swept = dict.fromkeys(name for outcome in outcomes for name in outcome.cell.swept)
    return ("precision", *swept, "in [tok]", "out [tok]", "load", *(title for title, _ in _columns(outcomes)))


def printed_rows(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """A row per load, in the order of the cells; what was measured is a `Figure`, None where it is not known."""
    swept = list(dict.fromkeys(name for outcome in outcomes for name in outcome.cell.swept))
    columns = [column for _, column in _columns(outcomes)]
    return [
        (
            result.precision,
            *(outcome.cell.swept.get(name, "") for name in swept),
            round(fmean(request.input_tokens for request in point.requests)),
            round(fmean(request.output_tokens for request in point.requests)),
            load_text(point, rate_asked(result, point)),
            *(column[row] for column in columns),
        )
        for row, (outcome, result, point) in enumerate(points(outcomes))
    ]


def _columns(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Figure | None]]]:
    """Headings and columns of what was measured, a figure per load."""
    measured = [point for _, _, point in points(outcomes)]
    found = [
        (shown.title, mark_ties([_figure(point, shown) for point in measured], QUANTITIES[shown.quantity].better))
        for shown in _shown(outcomes)
    ]
    scores = [_score(result, point) for _, result, point in points(outcomes)]
    return [*found, ("accuracy [%]", mark_ties(scores, "higher"))] if any(scores) else found


def _figure(point: Point, shown: Shown) -> Figure | None:
    quantity = point.quantities[shown.quantity]
    if quantity.value is None:
        return None
    half = None if quantity.interval_95 is None else quantity.interval_95 * shown.scale
    return Figure(quantity.value * shown.scale, half, not point.invalid)


def _score(result: Result, point: Point) -> Figure | None:
    """Of the point's task; its interval is that of the harness's standard error, in percent."""
    score = accuracy_of(result, point)
    if score is None:
        return None
    half = None if score.stderr is None else 100 * SPREADS["accuracy"].to_95 * score.stderr
    return Figure(100 * score.value, half, not point.invalid)


def load_text(point: Point, asked_per_s: float | None) -> str:
    """A load in a few words, the rate that was asked for beside the one that was sent; an invalid point says so."""
    load = point.load
    sent = load.request_rate_per_s
    if load.concurrency is not None:
        text = f"{load.concurrency} in flight"
    elif asked_per_s is None:
        text = "a trace" if sent is None else f"a trace of {sent:.3g} requests/s"
    elif sent is None or f"{sent:.3g}" == f"{asked_per_s:.3g}":
        text = f"{asked_per_s:.3g} requests/s"
    else:
        text = f"{asked_per_s:.3g} requests/s asked, {sent:.3g} sent"
    return f"{text} (invalid)" if point.invalid else text


def label(outcome: Outcome) -> str:
    """A cell in the legend of a plot."""
    asked = outcome.cell.submission
    swept = "".join(f", {name} {value or 'none'}" for name, value in outcome.cell.swept.items())
    return f"{asked.precision}, {asked.shape}{swept}"
