"""Plain HTTP beside the page: files, records, health. GET only; what changes the queue goes through the page."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from functools import cache
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from moe_cap.board import FORMATS
from moe_cap.errors import BusyError
from moe_cap.web.leaderboard import render_radar
from moe_cap.web.queue import render_queue
from moe_cap.web.responses import Encoded, answer, encode
from moe_cap.web.result import render_missing, render_result
from moe_cap.web.snapshot import Mirror, Snapshot
from moe_cap.web.style import STATIC

HTML = "text/html; charset=utf-8"
Rows = Annotated[Sequence[str], Query()]
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def _static_names() -> frozenset[str]:
    return frozenset(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


@cache
def _static(name: str) -> Encoded:
    return encode((STATIC / name).read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream")


def build_routes(mirror: Mirror, *, may_cancel: bool) -> APIRouter:
    """All routes; they read what `mirror` holds and never a store."""
    router = APIRouter()
    _add_data(router, mirror)
    _add_fragments(router, mirror, may_cancel=may_cancel)
    _add_static(router)
    return router


def _read(mirror: Mirror) -> Snapshot:
    """Both stores as they were read last, or a 503 before they were."""
    try:
        return mirror.read()
    except BusyError as error:
        raise HTTPException(503, str(error), {"Retry-After": f"{error.wait_s:.0f}"}) from error


def _add_data(router: APIRouter, mirror: Mirror) -> None:
    """What a program reads: health, versions, the table, one record."""

    @router.get("/healthz")
    def health() -> JSONResponse:
        now = mirror.current
        body = {
            "status": "ok" if now.trouble is None else "stale",
            "looked_at": now.looked_at.isoformat(),
            "trouble": now.trouble,
            "results": len(now.board.results),
            "unreadable": len(now.board.unreadable),
            "requests": len(now.requests),
        }
        return JSONResponse(body)

    @router.get("/api/version")
    def version() -> JSONResponse:
        now = mirror.current
        body = {"board": now.board.grid.etag, "queue": now.queue_version, "trouble": now.trouble}
        return JSONResponse(body, headers={"Cache-Control": "no-store"})

    @router.get("/api/grid.json")
    def grid(request: Request) -> Response:
        return answer(request, mirror.current.board.grid)

    @router.get("/api/board.{file_format}")
    def table(request: Request, file_format: str) -> Response:
        if file_format not in FORMATS:
            raise HTTPException(404, f"the table comes as {', '.join(FORMATS)}")
        filename = None if file_format == "json" else f"moe-cap.{file_format}"
        return answer(request, _read(mirror).board.file(file_format), filename=filename)

    @router.get("/api/results/{result_id}")
    def record(request: Request, result_id: str, download: bool = False) -> Response:
        board = _read(mirror).board
        data = board.records.get(result_id)
        if data is None:
            raise HTTPException(404, "no such result")
        filename = f"moe-cap-{result_id}.json" if download else None
        return answer(request, encode(data, "application/json"), filename=filename)


def _add_fragments(router: APIRouter, mirror: Mirror, *, may_cancel: bool) -> None:
    """What the page fetches piece by piece, and the page of one result."""

    @router.get("/api/radar.html")
    def radar(request: Request, row: Rows = (), cost: str = "purchase", axis: Rows = ()) -> Response:
        body = render_radar(mirror.current.board.table, row, cost, axis)
        return answer(request, encode(body.encode(), HTML))

    @router.get("/api/queue.html")
    def queue(request: Request) -> Response:
        body = render_queue(mirror.current.requests, may_cancel=may_cancel)
        return answer(request, encode(body.encode(), HTML))

    @router.get("/result")
    def page(request: Request, id: str = "", point: int = 0) -> Response:
        board = _read(mirror).board
        result = board.results.get(id)
        if result is None:
            return HTMLResponse(render_missing(id), status_code=404)
        body = render_result(result, board.table, point)
        return answer(request, encode(body.encode(), HTML))


def _add_static(router: APIRouter) -> None:
    """Scripts, styles and pictures; their addresses carry a version, so that they are kept for ever."""

    @router.get("/cap/{name:path}")
    def static(request: Request, name: str) -> Response:
        if name not in _static_names():
            raise HTTPException(404, "no such file")
        return answer(request, _static(name), cache=FOR_EVER)
