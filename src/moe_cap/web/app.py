"""The whole page: tabs, routes, headers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read while gradio is imported

import gradio as gr
from fastapi import FastAPI

from moe_cap.queue import Queue
from moe_cap.submission import Submission
from moe_cap.web.api import build_api
from moe_cap.web.leaderboard import build_leaderboard
from moe_cap.web.pages import render
from moe_cap.web.queue import build_queue
from moe_cap.web.routes import build_routes
from moe_cap.web.security import SecureHeaders
from moe_cap.web.snapshot import Mirror
from moe_cap.web.style import build_theme, head
from moe_cap.web.submit import Desk, Preflight, build_submit

ABOUT = Path(__file__).parent / "about.md"


def build_page(mirror: Mirror, desk: Desk, queue: Queue, *, may_cancel: bool, example: str | None) -> gr.Blocks:
    """All tabs; `?tab=queue` opens one. The form begins with the model `example`."""
    with gr.Blocks(title="MoE-CAP leaderboard", analytics_enabled=False, fill_width=True) as demo:
        gr.HTML(render("header.html"), apply_default_css=False)
        with gr.Tabs(elem_id="cap-tabs") as tabs:
            with gr.Tab("Leaderboard", id="leaderboard"):
                build_leaderboard()
            with gr.Tab("Submit", id="submit"):
                build_submit(desk, tabs, example)
            with gr.Tab("Queue", id="queue"):
                build_queue(mirror, queue, may_cancel=may_cancel)
            with gr.Tab("About", id="about"):
                gr.Markdown(ABOUT.read_text(encoding="utf-8"), elem_classes="cap-about")
        build_api(mirror, desk)
        demo.load(_open_tab, None, tabs, api_visibility="private", show_progress="hidden")
    return demo


def _open_tab(request: gr.Request) -> gr.Tabs:
    wanted = request.query_params.get("tab")
    return gr.Tabs(selected=wanted) if wanted in {"submit", "queue", "about"} else gr.Tabs()


def build_app(
    mirror: Mirror,
    queue: Queue,
    check: Callable[[Submission], Preflight],
    *,
    may_cancel: bool,
    example: str | None,
) -> FastAPI:
    """The application that a server runs; the mirror starts and stops with it.

    Args:
        mirror: what the handlers read.
        queue: where submissions go.
        check: the pre-flight.
        may_cancel: whether visitors may cancel what waits; not on a public Space, where nobody says who they are.
        example: model that the form begins with, which the pre-flight takes; None where there is no such model.
    """

    @asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        mirror.start()
        yield
        mirror.stop()

    app = FastAPI(title="MoE-CAP", docs_url=None, redoc_url=None, openapi_url=None, lifespan=alive)
    app.include_router(build_routes(mirror, may_cancel=may_cancel))
    app.add_middleware(SecureHeaders)
    gr.mount_gradio_app(
        app,
        build_page(mirror, Desk(check, queue, mirror), queue, may_cancel=may_cancel, example=example),
        path="/",
        theme=build_theme(),
        head=head(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
    )
    return app
