"""The double as a server on the loopback: the routes of reading.py and writing.py, faults in front of them.

    with Server() as hub:
        hub.hub.add_user("alice", "hf_alice")
        api = HfApi(endpoint=hub.url, token="hf_alice")

Large files need HF_HUB_DISABLE_XET=1 in the client's environment: Xet is a protocol of its own.
"""

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from . import reading, writing
from .double import Hub, HubError
from .exchange import Exchange
from .faults import Fault, Faults

Handler = Callable[[Exchange], Response | Awaitable[Response]]


@dataclass(frozen=True)
class Seen:
    """One answered request, for tests that count them."""

    method: str
    path: str
    query: str
    status: int


def _refusal(error: HubError) -> Response:
    headers = {"X-Error-Message": error.message, "X-Request-Id": f"Root=1-{time.time_ns():x}", **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)


def _faulty(fault: Fault) -> Response:
    if fault.page is not None:
        return HTMLResponse(fault.page, fault.status, fault.headers)
    return _refusal(HubError(fault.status, fault.message, None, **fault.headers))


def build_app(hub: Hub, faults: Faults, log: list[Seen]) -> Any:
    def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            ask = Exchange(hub, faults, request, await request.body())
            try:
                _ = ask.user
                answered = handler(ask)
                return await answered if inspect.isawaitable(answered) else answered
            except HubError as error:
                return _refusal(error)

        async def answer_or_fail(request: Request) -> Response:
            fault = faults.take(request.method, request.scope["path"])
            await asyncio.sleep(faults.answer_s)
            if fault is None:
                response = await answer(request)
            else:
                if fault.applied:
                    await answer(request)
                response = _faulty(fault)
            log.append(Seen(request.method, request.scope["path"], str(request.url.query), response.status_code))
            return response

        return answer_or_fail

    routes = [
        Route(path, endpoint(handler), methods=[method]) for method, path, handler in (*reading.ROUTES, *writing.ROUTES)
    ]
    app = Starlette(routes=routes)

    async def with_quoted_path(scope: Any, receive: Any, send: Any) -> None:
        """Route on the path as it was sent: a revision `refs%2Fpr%2F1` is one part of it."""
        await app({**scope, "path": scope["raw_path"].decode()}, receive, send)

    return with_quoted_path


class Server:
    """The double in a thread of this process."""

    def __init__(self) -> None:
        self.hub, self.faults = Hub(), Faults()
        self.log: list[Seen] = []

    def __enter__(self) -> Self:
        # With protocol 0 instead of TCP asyncio leaves Nagle's algorithm on, and each request takes 44 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = build_app(self.hub, self.faults, self.log)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.should_exit = True
        self._thread.join(10)
