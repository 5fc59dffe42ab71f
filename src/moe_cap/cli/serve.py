"""`moe-cap serve`: the leaderboard in the browser, with a worker beside it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack
from types import FrameType
from typing import Annotated

import typer

from backend.embedded import EmbeddedWorker
from moe_cap.settings import read_settings
from moe_cap.web.serve import listen, serve

Host = Annotated[str | None, typer.Option(help="Address to listen on; MOE_CAP_HOST otherwise.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; MOE_CAP_PORT otherwise.")]
WithWorker = Annotated[bool | None, typer.Option("--worker/--no-worker", help="Start a worker beside the page.")]
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def run(host: Host = None, port: Port = None, worker: WithWorker = None) -> None:
    """Serve the leaderboard; what is not given comes from the environment (src/moe_cap/settings.py)."""
    logging.basicConfig(level=logging.WARNING, format=FORMAT, stream=sys.stderr)
    given = {"MOE_CAP_HOST": host, "MOE_CAP_PORT": port, "MOE_CAP_WORKER": None if worker is None else int(worker)}
    environ = os.environ | {name: str(value) for name, value in given.items() if value is not None}
    settings = read_settings(environ)
    signal.signal(signal.SIGTERM, _leave)  # uvicorn stops first and then raises the signal again, to end here
    with ExitStack() as ending, listen(settings.host, settings.port) as listener:
        if settings.embedded_worker:
            beside = EmbeddedWorker(environ, settings.home)
            beside.start()
            ending.callback(beside.stop)
        typer.echo(f"MoE-CAP at http://{settings.host}:{settings.port}")
        serve(settings, listener)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
