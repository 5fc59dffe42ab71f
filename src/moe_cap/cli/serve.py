"""`moe-cap serve`: the leaderboard in the browser, with a worker beside it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from backend.embedded import EmbeddedWorker
from moe_cap.cli.output import AsJson, print_json
from moe_cap.cli.stores import open_queue, open_results
from moe_cap.errors import InvalidInputError
from moe_cap.preflight import check
from moe_cap.settings import Settings, read_settings
from moe_cap.web.app import build_app
from moe_cap.web.snapshot import Mirror
from moe_cap.web.submit import EXAMPLE_MODEL

Host = Annotated[str | None, typer.Option(help="Address to listen on; MOE_CAP_HOST, or 127.0.0.1.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port, 0 for any free one; MOE_CAP_PORT, or 7860.")]
WithWorker = Annotated[bool | None, typer.Option("--worker/--no-worker", help="Evaluate too; MOE_CAP_WORKER, or yes.")]
STOP_S = 3
"""How long open pages may keep the server from stopping."""


def run(host: Host = None, port: Port = None, worker: WithWorker = None, as_json: AsJson = False) -> None:
    """Serve the leaderboard until Ctrl-C. The environment says where queue and results are (docs/cli.md)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = settings_for(os.environ, host, port, worker)
    listener = listen(settings.host, settings.port)
    url = f"http://{settings.host}:{listener.getsockname()[1]}"
    _announce(url, settings, as_json)
    config = uvicorn.Config(build(settings), log_level="warning", timeout_graceful_shutdown=STOP_S)
    signal.signal(signal.SIGTERM, _leave)
    with _worker_beside(settings):
        uvicorn.Server(config).run(sockets=[listener])


def settings_for(environ: Mapping[str, str], host: str | None, port: int | None, worker: bool | None) -> Settings:
    """The environment's settings with the options given beside it: who can reach the page decides more defaults."""
    settings = read_settings({**environ, "MOE_CAP_HOST": host} if host else environ)
    return replace(
        settings,
        port=settings.port if port is None else port,
        embedded_worker=settings.embedded_worker if worker is None else worker,
    )


def build(settings: Settings) -> FastAPI:
    """The application over the stores that `settings` name."""
    queue = open_queue(settings)
    mirror = Mirror(open_results(settings), queue, now=lambda: datetime.now(UTC), every_s=settings.poll_s)
    # where visitors may name folders they are at home, and may cancel too
    at_home = settings.allow_folders
    example = EXAMPLE_MODEL if at_home else None
    return build_app(mirror, queue, lambda asked: check(asked, settings), may_cancel=at_home, example=example)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidInputError: the address cannot be listened on.
    """
    # with the protocol named, asyncio turns Nagle's algorithm off; otherwise each answer waits some 40 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # whoever reads the announced address may connect at once
    except OSError as error:
        listener.close()
        message = f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port"
        raise InvalidInputError(message) from error
    return listener


def _announce(url: str, settings: Settings, as_json: bool) -> None:
    if as_json:
        stores = {"queue": settings.queue, "results": settings.results}
        print_json({"url": url, **stores, "worker": settings.embedded_worker})
    else:
        beside = "with a worker beside it" if settings.embedded_worker else "without a worker"
        typer.echo(f"MoE-CAP leaderboard at {url}, {beside}. Ctrl-C stops it.")


@contextmanager
def _worker_beside(settings: Settings) -> Iterator[None]:
    if not settings.embedded_worker:
        yield
        return
    worker = EmbeddedWorker({**os.environ, "MOE_CAP_HOST": settings.host}, settings.home)
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def _leave(_signum: int, _frame: FrameType | None) -> None:
    """Uvicorn raises SIGTERM again once it has stopped; ending this way lets the worker give back what it has."""
    raise SystemExit(0)
