"""The Queue tab: what runs, what waits, what ended, live."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import gradio as gr

from moe_cap.errors import MoECapError, SubmissionError
from moe_cap.queue import Progress, Request, State
from moe_cap.submission import parse_submission
from moe_cap.web.pages import render
from moe_cap.web.snapshot import Mirror
from moe_cap.web.style import static_url

ENDED_SHOWN = 20
OVER = frozenset({State.FINISHED, State.FAILED, State.CANCELLED})


class Canceller(Protocol):
    """What the tab may do to the queue."""

    def withdraw(self, request_id: str) -> object:
        """Take back a request that nobody runs yet."""


@dataclass(frozen=True, slots=True)
class Card:
    """One request as it is shown; times are ISO 8601."""

    id: str
    state: str
    title: str
    detail: str
    submitted_at: str
    ended_at: str | None
    attempts: int
    worker: str | None
    expires_at: str | None
    progress: Progress | None
    position: str | None
    reason: str | None
    result_ids: Sequence[str]
    may_cancel: bool

    @property
    def version(self) -> str:
        """Changes when anything on the card does."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def show_submission(body: Mapping[str, object]) -> tuple[str, str]:
    """What was asked: the model, and the rest of the system in one line."""
    try:
        asked = parse_submission(body)
    except SubmissionError as error:
        return str(body.get("model", "unreadable submission")), str(error)
    levels = ", ".join(map(str, asked.concurrency))
    lengths = asked.shape if asked.lengths else f"{asked.input_tokens}→{asked.output_tokens}"
    return asked.model, " · ".join((asked.engine, asked.precision, *asked.tasks, f"{levels} in flight", lengths))


def _iso(time_s: float | None) -> str | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC).isoformat()


def _card(request: Request, position: int | None, *, may_cancel: bool) -> Card:
    lease = request.lease
    title, detail = show_submission(request.submission)
    return Card(
        id=request.id,
        state=request.state.value,
        title=title,
        detail=detail,
        submitted_at=_iso(request.submitted_at) or "",
        ended_at=_iso(request.ended_at) if request.state in OVER else None,
        attempts=request.attempts,
        worker=lease.worker if lease else None,
        expires_at=_iso(lease.expires_at) if lease else None,
        progress=lease.progress if lease else None,
        position=None if position is None else "next" if position == 0 else f"{position} before it",
        reason=request.reason or (request.history[-1].reason if request.history else None),
        result_ids=request.result_ids,
        may_cancel=may_cancel and request.state is State.PENDING,
    )


def _left_at(request: Request) -> float:
    """When it was over; a hand that moved its file here wrote no time, and then it is the one of its submission."""
    return request.submitted_at if request.ended_at is None else request.ended_at


def render_queue(requests: Sequence[Request], *, may_cancel: bool) -> str:
    """Return the cards by section; the words do not depend on the time of day, so that equal queues are equal text."""
    running = [_card(each, None, may_cancel=may_cancel) for each in requests if each.state is State.RUNNING]
    pending = [request for request in requests if request.state is State.PENDING]
    ended = [request for request in requests if request.state in OVER]
    ended.sort(key=_left_at, reverse=True)
    sections = (
        ("running", "Running", running),
        ("pending", "Waiting", [_card(request, at, may_cancel=may_cancel) for at, request in enumerate(pending)]),
        ("ended", "Ended", [_card(request, None, may_cancel=may_cancel) for request in ended[:ENDED_SHOWN]]),
    )
    stages = [f"{card.title}: {card.progress.stage}" for card in running if card.progress]
    return render("queue.html", sections=sections, empty=not requests, stages=stages)


def build_panel() -> gr.HTML:
    """Cards patched in place; its delete event carries the id of a request to cancel."""
    return gr.HTML(
        html_template=render_queue((), may_cancel=False),
        js_on_load="capQueue.mount(element, (id) => trigger('delete', {id}));",
        head=f'<script src="{static_url("queue.js")}"></script>',
        apply_default_css=False,
        elem_id="cap-queue",
    )


def build_queue(mirror: Mirror, queue: Canceller, *, may_cancel: bool) -> None:
    """Build the tab; what the page does not offer, the server does not do either."""
    panel = build_panel()
    if may_cancel:
        _connect_cancel(panel, mirror, queue)


def _connect_cancel(panel: gr.HTML, mirror: Mirror, queue: Canceller) -> None:
    def cancel(event: gr.EventData) -> None:
        try:
            queue.withdraw(str(event.id))
        except MoECapError as error:
            gr.Warning(str(error))
        else:
            gr.Info("Cancelled")
        mirror.look()

    panel.delete(cancel, None, None, api_visibility="private", show_progress="hidden")
