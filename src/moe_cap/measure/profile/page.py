"""Panels on one page that needs no network: headings and notes as text, drawings by plotly, its script inside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import NamedTuple

from plotly.graph_objects import Figure

COLOURS = ("#1f6fb4", "#d1662f", "#2a9d6f", "#8a5fb0", "#b8952d", "#6b6b6b", "#c0446f", "#3b9ab2")
DASHES = {"solid": "", "dash": "7 4", "longdashdot": "11 3 3 3"}
"""Plotly's names, and the same as SVG has them in the legend; each serves as many lines as there are colours."""
HEIGHT = 380
CLOSEST = 0.07
"""Share of an axis that two of its labels keep between them."""
ALONE = 0.3
"""Decades on either side of a point that has no neighbour."""

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 1.2rem auto; max-width: 1800px;
  padding: 0 1.2rem }
h1 { font-size: 1.25rem; margin: 0 0 .6rem } h2 { font-size: 1.05rem; margin: 0 }
main { display: grid; gap: 1.4rem 1.6rem }
@media (min-width: 900px) { main { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
section { min-width: 0 } section p { margin: .2rem 0 0; color: #555; font-size: .9rem }
ul { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.6rem; margin: 0 0 1rem; padding: 0 }
ul svg { vertical-align: middle; margin-right: .45rem }
</style></head><body>
<h1>$title</h1>
<ul>$legend</ul>
<main>$panels</main>
</body></html>
""")


class Stroke(NamedTuple):
    """How a line looks in every panel and in the legend."""

    colour: str
    dash: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A drawing with its heading; `note` says what is missing from it, or how to read it."""

    title: str
    figure: Figure
    note: str = ""


def stroke(index: int) -> Stroke:
    """Of line `index`: colours first, then other dashes."""
    turn, colour = divmod(index, len(COLOURS))
    return Stroke(COLOURS[colour], list(DASHES)[turn % len(DASHES)])


def draw_page(title: str, legend: Sequence[tuple[str, Stroke]], panels: Sequence[Panel]) -> str:
    """The page as HTML; two panels stand side by side where there is room for both."""
    names = "".join(f"<li>{_sample(look)}{escape(name)}</li>" for name, look in legend)
    drawn = "".join(_section(panel, first=panel is panels[0], number=number) for number, panel in enumerate(panels))
    return PAGE.substitute(title=escape(title), legend=names, panels=drawn)


def _section(panel: Panel, *, first: bool, number: int) -> str:
    figure = panel.figure.to_html(
        full_html=False,
        include_plotlyjs=first,
        div_id=f"panel-{number}",
        config={"responsive": True, "displaylogo": False},
    )
    note = f"<p>{escape(panel.note)}</p>" if panel.note else ""
    return f"<section><h2>{escape(panel.title)}</h2>{figure}{note}</section>"


def _sample(look: Stroke) -> str:
    line = f'<line x1="0" y1="6" x2="34" y2="6" stroke="{look.colour}" stroke-width="2.5" '
    return f'<svg width="34" height="12">{line}stroke-dasharray="{DASHES[look.dash]}"/></svg>'


def lay_out(figure: Figure) -> Figure:
    """What all panels have in common."""
    margin = {"l": 60, "r": 16, "t": 14, "b": 50}
    return figure.update_layout(template="plotly_white", height=HEIGHT, margin=margin, showlegend=False)


def logarithmic(values: Iterable[float]) -> dict[str, object]:
    """An x axis over exactly these values: labels at them as far as they do not touch, and some room beside them."""
    places = sorted(set(values))
    if not places:
        return {"type": "log", "range": [0, 1], "showticklabels": False, "showgrid": False, "ticks": ""}
    low, high = math.log10(places[0]), math.log10(places[-1])
    room = 0.06 * (high - low) or ALONE
    shown = _apart(places, CLOSEST * (high - low))
    return {
        "type": "log",
        "range": [low - room, high + room],
        "tickmode": "array",
        "tickvals": shown,
        "ticktext": [f"{place:.3g}" if place % 1 else f"{place:.0f}" for place in shown],
    }


def _apart(places: Sequence[float], decades: float) -> list[float]:
    """Those that are far enough from the one before, the last one always."""
    kept: list[float] = []
    for place in reversed(places):
        if not kept or math.log10(kept[-1] / place) >= decades:
            kept.append(place)
    return kept[::-1]
