"""The first tab: the grid, and beside it the CAP radar of the selected rows."""

from __future__ import annotations

from typing import Any

import gradio as gr

from moe_cap.metrics.cap import SCALES
from moe_cap.web.pages import render
from moe_cap.web.radar import BASES, MORE_AXES, axes_on, draw_rows
from moe_cap.web.snapshot import Mirror
from moe_cap.web.style import GRID_LIBRARY, static_url

MAX_SELECTED = 5


def build_grid() -> gr.HTML:
    """AG Grid in a Gradio component; its select event carries the ids of the selected rows."""
    scripts = "".join(f'<script src="{static_url(name)}"></script>' for name in (GRID_LIBRARY, "grid.js"))
    return gr.HTML(
        html_template=render("board.html"),
        js_on_load="capBoard.mount(element, (rows) => trigger('select', {rows}));",
        head=scripts,
        apply_default_css=False,
        elem_id="cap-leaderboard",
    )


def build_leaderboard(demo: gr.Blocks, mirror: Mirror) -> None:
    """Build the tab's widgets and connect them."""
    with gr.Row(elem_classes="cap-split"):
        grid = build_grid()
        with gr.Column(elem_classes="cap-side"):
            radar = gr.HTML(apply_default_css=False, elem_id="cap-radar")
            with gr.Accordion("Axes", open=False, elem_classes="cap-axes"):
                info = "Bases are never mixed: one for all shapes"
                basis = gr.Radio(list(BASES), value="Purchase", label="Cost", info=info)
                titles = [(SCALES[name].title, name) for name in MORE_AXES]
                more = gr.CheckboxGroup(titles, label="More axes", value=[])
    picked = gr.State(())

    def drawn(rows: tuple[str, ...], cost: str, others: list[str]) -> str:
        return draw_rows(mirror.current.board.table, rows, axes_on(BASES[cost], others))

    def select(event: gr.EventData, cost: str, others: list[str]) -> tuple[tuple[str, ...], str]:
        rows = tuple(event.rows)[:MAX_SELECTED]
        return rows, drawn(rows, cost, others)

    def open_page(request: gr.Request) -> tuple[tuple[str, ...], str]:
        wanted = tuple(value for name, value in request.query_params.multi_items() if name == "row")[:MAX_SELECTED]
        return wanted, drawn(wanted, "Purchase", [])

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    grid.select(select, [basis, more], [picked, radar], trigger_mode="always_last", **quiet)
    gr.on([basis.change, more.change], drawn, [picked, basis, more], radar, trigger_mode="always_last", **quiet)
    demo.load(open_page, None, [picked, radar], **quiet)
