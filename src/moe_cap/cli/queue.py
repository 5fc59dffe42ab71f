"""`moe-cap queue`: what waits, runs and has ended."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.cli.stores import open_queue, settings_here
from moe_cap.errors import InvalidInputError
from moe_cap.queue import Queue, Request, State
from moe_cap.queue.record import request_bytes

Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this request.")]
Only = Annotated[State | None, typer.Option("--state", help="Only requests in this state.")]
Cancel = Annotated[bool, typer.Option("--cancel", help="Cancel the request of that id.")]


def run(request_id: Id = None, state: Only = None, cancel: Cancel = False, as_json: AsJson = False) -> None:
    """Show the queue, or one request; with --cancel, end one that waits or runs."""
    queue = open_queue(settings_here())
    if request_id is not None:
        request = queue.cancel(request_id) if cancel else queue.get(request_id)
        _show_one(queue, request, as_json)
    elif cancel:
        raise InvalidInputError("--cancel needs the id of a request")
    else:
        _show_all(queue, state, as_json)


def as_document(request: Request, position: int | None) -> dict[str, Any]:
    """A request as JSON: its record, its state and its place in the line."""
    record: dict[str, Any] = json.loads(request_bytes(request))
    return {**record, "state": request.state.value, "position": position}


def _show_all(queue: Queue, state: State | None, as_json: bool) -> None:
    requests = queue.requests(state)
    waiting = [request.id for request in requests if request.state is State.PENDING]
    places = {request_id: place for place, request_id in enumerate(waiting, start=1)}
    for problem in queue.problems():
        typer.echo(f"moe-cap: left out: {problem}", err=True)
    if as_json:
        print_json([as_document(request, places.get(request.id)) for request in requests])
        return
    print_table(
        "",
        ("id", "state", "model", "engine", "precision", "stage", "done", "submitted", "reason"),
        [_row(request) for request in requests],
    )


def _row(request: Request) -> tuple[object, ...]:
    asked = request.submission
    progress = request.lease.progress if request.lease else None
    done = f"{progress.fraction:.0%}" if progress and progress.fraction is not None else ""
    return (
        request.id, request.state.value, asked.get("model"), asked.get("engine"), asked.get("precision"),
        progress.stage if progress else "", done, _time(request.submitted_at), request.reason or "",
    )  # fmt: skip


def _show_one(queue: Queue, request: Request, as_json: bool) -> None:
    position = queue.position(request.id)
    if as_json:
        print_json(as_document(request, position))
        return
    facts: dict[str, object] = {"state": request.state.value, "position": position, **request.submission}
    facts |= {"submitted": _time(request.submitted_at), "attempts": request.attempts}
    facts |= {"results": ", ".join(request.result_ids) or None, "reason": request.reason}
    if request.lease and (progress := request.lease.progress):
        facts |= {"worker": request.lease.worker, "stage": progress.stage, "done": progress.fraction}
        facts |= {"eta_s": progress.eta_s, "log": "\n".join(progress.log_tail)}
    print_facts(f"request {request.id}", facts)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
