"""The page put together from settings, and served until it is told to stop."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from functools import partial

import uvicorn
from fastapi import FastAPI

from moe_cap.errors import InvalidInputError
from moe_cap.preflight import check
from moe_cap.queue import Queue
from moe_cap.results import ResultStore
from moe_cap.settings import Settings
from moe_cap.store import open_store
from moe_cap.web.app import build_app
from moe_cap.web.snapshot import Mirror

GRACE_S = 2
"""What open connections get when the server stops; a browser holds one for as long as its page is open."""


def app_of(settings: Settings) -> FastAPI:
    """The application over the stores that the settings name."""
    results = ResultStore(open_store(settings.results, token=settings.hf_token))
    queue = Queue(open_store(settings.queue, token=settings.hf_token), lease_s=settings.lease_s)
    mirror = Mirror(results, queue, now=partial(datetime.now, UTC), every_s=settings.poll_s)
    # Visitors of a public page have no names, so there nobody may cancel what another one submitted.
    return build_app(mirror, queue, partial(check, settings=settings), may_cancel=settings.allow_folders)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidInputError: the port is taken or the host is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio switches Nagle's delay off; without, each answer may wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidInputError(f"cannot listen on {host}:{port}: {error.strerror}; set MOE_CAP_PORT") from error
    listener.listen(2048)
    return listener


def serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    config = uvicorn.Config(app_of(settings), log_level="warning", timeout_graceful_shutdown=GRACE_S)
    uvicorn.Server(config).run(sockets=[listener])
