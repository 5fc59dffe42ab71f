"""The first tab: the grid, and beside it the CAP radar of the selected rows."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
import pandas as pd
from markupsafe import Markup

from moe_cap.web.pages import render
from moe_cap.web.radar import BASES, MAX_SHAPES, axes_on, draw_rows
from moe_cap.web.style import GRID_LIBRARY, static_url


def build_leaderboard() -> gr.HTML:
    """Grid and radar in one component; static/grid.js fills both from api/grid.json and api/radar.html."""
    scripts = "".join(f'<script src="{static_url(name)}"></script>' for name in (GRID_LIBRARY, "columns.js", "grid.js"))
    return gr.HTML(
        html_template=render("board.html"),
        js_on_load="capBoard.mount(element);",
        head=scripts,
        apply_default_css=False,
        elem_id="cap-leaderboard",
    )


def render_radar(table: pd.DataFrame, rows: Sequence[str], cost: str, more: Sequence[str]) -> Markup:
    """The radar panel of these rows; an unknown basis of cost is the first one, unknown axes are left out."""
    basis = BASES.get(cost, next(iter(BASES.values())))
    return draw_rows(table, rows[:MAX_SHAPES], axes_on(basis, more))
