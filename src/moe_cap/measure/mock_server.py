"""An OpenAI-compatible streaming server that does exactly as it was told and logs what it really did.

It stands where an engine's HTTP server stands: tests drive the load client against it, and `benchmarks/load_client.py`
holds every client's measurements against its log. `python -m moe_cap.measure.mock_server --help` starts it in a process
of its own.

Beside `/v1/completions` and `/v1/chat/completions` (streamed) it answers `/v1/models`, `/health`, `/mock/log` (what it
did) and `/mock/reset` (forget it).
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import socket
import threading
from contextlib import suppress
from dataclasses import fields
from time import monotonic_ns
from types import TracebackType
from typing import Self

import httptools
from pydantic import JsonValue

from moe_cap.measure.load.loop import READABLE, WRITABLE, Loop, allow_many_sockets
from moe_cap.measure.load.stamps import ask_for_stamps, receive
from moe_cap.measure.mock_ask import PrefixCache, counter_of, read_ask
from moe_cap.measure.mock_log import ServedRequest, tell
from moe_cap.measure.mock_script import LAST_CHUNK, Behaviour, Script, Write, json_response, script_of

BACKLOG = 4096
COMPLETIONS = ("/v1/completions", "/v1/chat/completions")


class _Connection:
    """One client's connection; requests on it are answered one after the other."""

    def __init__(self, server: MockServer, client: socket.socket) -> None:
        self._server = server
        self._socket = client
        self._parser = httptools.HttpRequestParser(self)
        self._arrived_ns = 0
        self._unsent = b""
        self._script: Script = iter(())
        self._next = Write(0.0, b"", 0)
        self._served: ServedRequest | None = None
        self._open = True
        self._path = ""
        self._id = ""
        self._body: list[bytes] = []
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_stamps(client)
        server.loop.watch(client.fileno(), READABLE, self._read)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._server.loop.forget(self._socket.fileno())
            self._socket.close()
            self._server.connections.discard(self)

    def _read(self) -> None:
        try:
            data, self._arrived_ns, _ = receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def on_message_begin(self) -> None:
        self._path, self._id, self._body = "", "", []

    def on_url(self, url: bytes) -> None:
        self._path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._id = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._path not in COMPLETIONS:
            self._send(self._server.answer(self._path))
            return
        try:
            body = json.loads(b"".join(self._body))
            stream = body["stream"]
        except (ValueError, KeyError, TypeError):
            stream = False
        if not stream:
            self._send(json_response(400, {"error": {"message": "send a JSON body with stream: true"}}))
            return
        if body.get("model") != self._server.behaviour.model:
            self._send(json_response(404, {"error": {"message": f"the model {body.get('model')} does not exist"}}))
            return
        self._begin(body)

    def _begin(self, body: dict[str, JsonValue]) -> None:
        server = self._server
        served = self._served = ServedRequest(len(server.log), self._id, self._arrived_ns)
        server.log.append(served)
        asked = read_ask(served.serial, self._path, body, server.count, server.cache)
        self._script = script_of(server.behaviour, asked, server.rng)
        self._advance()

    def _advance(self) -> None:
        """Arm the next write, or do those that are due at once."""
        for write in self._script:
            self._next = write
            due_ns = self._due_ns()
            if due_ns > monotonic_ns():
                self._server.loop.call_at(due_ns, self._write_and_advance)
                return
            self._write()

    def _write_and_advance(self) -> None:
        self._write()
        self._advance()

    def _due_ns(self) -> int:
        return (self._served.received_ns if self._served is not None else 0) + int(self._next.at_s * 1e9)

    def _write(self) -> None:
        write, served = self._next, self._served
        if not self._open or served is None:
            return
        if write.data is None:
            self.close()
            return
        now_ns = monotonic_ns()
        if write.tokens:
            late_ns = now_ns - self._due_ns()
            for _ in range(write.tokens):
                served.token_ns.append(now_ns)
                served.late_ns.append(late_ns)
        if write.data.endswith(LAST_CHUNK):
            served.ended_ns = now_ns
        self._send(write.data)

    def _send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        self._unsent = self._rest_after_sending(data)
        if self._unsent and self._open:
            self._server.loop.watch(self._socket.fileno(), WRITABLE, self._flush)

    def _flush(self) -> None:
        self._unsent = self._rest_after_sending(self._unsent)
        if not self._unsent and self._open:
            self._server.loop.watch(self._socket.fileno(), READABLE, self._read)

    def _rest_after_sending(self, data: bytes) -> bytes:
        try:
            return data[self._socket.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.close()
            return b""


class MockServer:
    """Serves until it is stopped, in a thread of this process (`with`) or in this thread (`serve`).

    Args:
        behaviour: the knobs.
        port: on the loopback interface; 0 takes a free one.

    Attributes:
        url: base address, ends in /v1.
        log: every completion request since the start or the last reset.
    """

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.behaviour = behaviour or Behaviour()
        self.count = counter_of(self.behaviour.tokenizer)
        self.cache = PrefixCache() if self.behaviour.prefix_cache else None
        self.rng = random.Random(self.behaviour.seed)  # noqa: S311 - delays, not secrets
        self.loop = Loop()
        self.log: list[ServedRequest] = []
        self.connections: set[_Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=BACKLOG)
        self._listener.setblocking(False)
        ask_for_stamps(self._listener)  # inherited by what it accepts, so a first request is stamped too
        self.loop.watch(self._listener.fileno(), READABLE, self._accept)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self.loop.run, daemon=True)

    def serve(self) -> None:
        """Serve in this thread until `loop.stop`."""
        self.loop.run()

    def close(self) -> None:
        """Close every socket."""
        for connection in tuple(self.connections):
            connection.close()
        self._listener.close()
        self.loop.close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.stop()
        self._thread.join()
        self.close()

    def answer(self, path: str) -> bytes:
        """The plain response to anything that is no completion."""
        if path == "/v1/models":
            return json_response(200, {"object": "list", "data": [{"id": self.behaviour.model, "object": "model"}]})
        if path == "/health":
            return json_response(200, {"status": "ok"})
        if path == "/mock/log":
            return json_response(200, tell(self.log))
        if path == "/mock/reset":
            self.log.clear()
            return json_response(200, {})
        return json_response(404, {"error": {"message": f"nothing at {path}"}})

    def _accept(self) -> None:
        with suppress(OSError):  # the client has gone again, or there are no descriptors left for it
            client, _ = self._listener.accept()
            self.connections.add(_Connection(self, client))


def _behaviour_arguments(parser: argparse.ArgumentParser) -> None:
    for knob in fields(Behaviour):
        kind = float if knob.default is None else type(knob.default)
        name = "--" + knob.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(name, action=argparse.BooleanOptionalAction, default=knob.default)
        else:
            parser.add_argument(name, type=kind, default=knob.default, help=f"default {knob.default}")


def main(arguments: list[str] | None = None) -> None:
    """Serve on a port of the loopback interface until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    _behaviour_arguments(parser)
    told = vars(parser.parse_args(arguments))
    server = MockServer(port=told.pop("port"), behaviour=Behaviour(**told))
    allow_many_sockets()
    gc.disable()
    try:
        server.serve()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
