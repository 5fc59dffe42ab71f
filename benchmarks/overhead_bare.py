"""Engines driven bare: what their users would write who want nothing but the time per token.

Nothing of ours is called in here while a clock runs. Both ways give the time between the first and the last token of
an answer over the tokens in between, as the other side of the comparison does.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from typing import Any
from urllib.parse import urlsplit

import h11
import torch
from transformers import CompileConfig, GenerationConfig

from benchmarks.overhead_figures import Pass
from moe_cap.errors import ServerError
from moe_cap.measure.engines.base import Request

READ_BYTES = 65536
TIMEOUT_S = 600.0
Arrived = list[tuple[float, bytes]]
"""Blocks as they came from a socket."""


@dataclass(frozen=True, slots=True)
class GenerateLoop:
    """`model.generate`, batch after batch, without a streamer: a clock before and behind each call.

    The model is the one that the session holds: the same weights at the same place, so that neither the memory's layout
    nor a second start enters. Time per token is the call for all tokens less a call for one, over the tokens between;
    whatever a call costs once (its settings, its cache, its prefill) is in both and cancels.

    Attributes:
        cache, compiled: the kind of cache and whether the decode step is compiled, as the engine was told.
    """

    model: Any
    cache: str | None
    compiled: bool

    def carry(self, requests: Sequence[Request], batch: int) -> Pass:
        """Fixed batches in order."""
        tpot_s, wall_s, answers, busy_s = [], 0.0, [], time.process_time()
        for start in range(0, len(requests), batch):
            group = requests[start : start + batch]
            prompts, tokens = [request.prompt for request in group], group[0].output_tokens
            one_s, _ = self._generate(prompts, 1)
            all_s, said = self._generate(prompts, tokens)
            tpot_s += [(all_s - one_s) / (tokens - 1)] * len(group)
            wall_s += all_s
            answers += [tuple(tokens) for tokens in said]
        return Pass(sum(tpot_s) / len(tpot_s), wall_s, time.process_time() - busy_s, tuple(answers))

    def _generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> tuple[float, list[list[int]]]:
        config = GenerationConfig(
            max_new_tokens=tokens, do_sample=False, cache_implementation=self.cache, disable_compile=not self.compiled,
            compile_config=_everywhere() if self.compiled else None,
        )  # fmt: skip
        self._wait()
        started_s = time.perf_counter()
        with torch.inference_mode():
            inputs = torch.tensor(prompts, device=self.model.device)
            output = self.model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)
        self._wait()
        return time.perf_counter() - started_s, output[:, inputs.shape[1] :].tolist()

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def _everywhere() -> CompileConfig:
    """Without this mark `generate` compiles on accelerators only."""
    config = CompileConfig()
    config._compile_all_devices = True
    return config


@dataclass(frozen=True, slots=True)
class RawClient:
    """Bare sockets in one thread: while answers stream it reads bytes and a clock, and takes them apart afterwards.

    The cheapest client that there can be in Python: on a small machine whatever a client computes is taken from the
    server, and eight threads of `http.client` took more than our own. The body is the plainest that makes an answer of
    fixed length: no token ids, no usage in every chunk, which our own client asks for.

    Attributes:
        url: of the completions interface.
        model: as the server calls it.
    """

    url: str
    model: str

    def carry(self, requests: Sequence[Request], batch: int) -> Pass:
        """A closed loop of `batch` users.

        Raises:
            ServerError: an answer is not what was asked for.
        """
        started_s, busy_s = time.perf_counter(), time.process_time()
        try:
            streams = self._stream_all([self._encoded(request) for request in requests], batch)
        except OSError as error:
            raise ServerError(f"{self.url}: {error!r}") from error
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - busy_s
        read = [
            read_answer(list(body_of(stream, self.url)), request.output_tokens)
            for stream, request in zip(streams, requests, strict=True)
        ]
        return Pass(sum(tpot_s for tpot_s, _ in read) / len(read), wall_s, cpu_s, tuple(text for _, text in read))

    def _encoded(self, request: Request) -> bytes:
        parts = urlsplit(self.url)
        content = json.dumps(
            {
                "model": self.model, "prompt": list(request.prompt), "max_tokens": request.output_tokens,
                "temperature": 0, "ignore_eos": True, "stream": True,
            }
        ).encode()  # fmt: skip
        head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + content

    def _stream_all(self, asked: Sequence[bytes], batch: int) -> list[Arrived]:
        """What came back for each; so many are under way at once."""
        streams: list[Arrived] = [[] for _ in asked]
        waiting = iter(range(len(asked)))
        with DefaultSelector() as selector, ExitStack() as opened:

            def send_next() -> None:
                if (index := next(waiting, None)) is not None:
                    connection = opened.enter_context(self._connected())
                    selector.register(connection, EVENT_READ, streams[index])
                    connection.sendall(asked[index])

            for _ in range(batch):
                send_next()
            while selector.get_map():
                if not (ready := selector.select(TIMEOUT_S)):
                    raise TimeoutError(f"silent for {TIMEOUT_S:g} s")
                for key, _ in ready:
                    block = key.fileobj.recv(READ_BYTES)
                    key.data.append((time.perf_counter(), block))
                    if self._is_whole(key.data):
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
                        send_next()
        return streams

    def _is_whole(self, stream: Arrived) -> bool:
        """Whether the stream ended: its last chunk is empty, or the server closed.

        Raises:
            ServerError: it is no stream but a refusal.
        """
        if len(stream) == 1 and b" 200 " not in stream[0][1].partition(b"\r\n")[0]:
            raise ServerError(f"{self.url} answered {stream[0][1][:200]!r}")
        end = b"".join(block for _, block in stream[-2:])
        return not stream[-1][1] or end.endswith(b"0\r\n\r\n")

    def _connected(self) -> socket.socket:
        parts = urlsplit(self.url)
        connection = socket.create_connection((str(parts.hostname), parts.port or 80), TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def body_of(arrived: Arrived, url: str) -> Iterator[tuple[float, bytes]]:
    """The body of an HTTP response with the time at which each piece of it came.

    Raises:
        ServerError: it is none.
    """
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("Host", "it"), ("Content-Length", "0")]))
    parser.send(h11.EndOfMessage())
    try:
        for at_s, block in arrived:
            parser.receive_data(block)
            while isinstance(event := parser.next_event(), h11.InformationalResponse | h11.Response | h11.Data):
                if isinstance(event, h11.Data):
                    yield at_s, bytes(event.data)
    except h11.RemoteProtocolError as error:
        raise ServerError(f"{url}: {error!r}") from error


def read_answer(arrived: Sequence[tuple[float, bytes]], tokens: int) -> tuple[float, str]:
    """Seconds per token after the first, and the text.

    A server sends an event for each token; some end with one more that holds none (llama.cpp).

    Raises:
        ServerError: it did not end because of its length, or there is no event for its last token.
    """
    events = list(_events(arrived))
    choices = [(at_s, event["choices"][0]) for at_s, event in events if event.get("choices")]
    ended = [choice.get("finish_reason") for _, choice in choices if choice.get("finish_reason")]
    if ended != ["length"] or len(choices) < 2:
        raise ServerError(f"an answer of {tokens} tokens came in {len(choices)} events and ended with {ended}")
    last_s = choices[min(tokens, len(choices)) - 1][0]
    return (last_s - choices[0][0]) / (tokens - 1), "".join(choice.get("text") or "" for _, choice in choices)


def _events(arrived: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, Mapping[str, Any]]]:
    """Server-sent events with the time at which each was whole."""
    held = b""
    for at_s, block in arrived:
        *lines, held = (held + block).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield at_s, json.loads(data)
