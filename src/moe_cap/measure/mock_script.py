"""What the mock server answers: a script of writes with exact times, and one script for each way to answer badly."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from pydantic import JsonValue

from moe_cap.measure.mock_ask import Ask


class Fault(StrEnum):
    """How a bad server is bad."""

    NONE = "none"
    HANG = "hang"
    """Takes the request and never answers."""
    STALL = "stall"
    """Falls silent after `fault_after` tokens."""
    DIE = "die"
    """Closes the connection after `fault_after` tokens."""
    FEWER_TOKENS = "fewer_tokens"
    """Finishes properly after `fault_after` tokens, whatever was asked."""
    ERROR_EVENT = "error_event"
    """Tells of an error inside the stream after `fault_after` tokens."""
    ENDLESS = "endless"
    """Goes on and on, whatever was asked."""
    NO_USAGE = "no_usage"
    GARBAGE_STREAM = "garbage_stream"
    """HTTP around bytes that are no events."""
    GARBAGE_HTTP = "garbage_http"
    STATUS_429 = "status_429"
    STATUS_500 = "status_500"
    BLANK = "blank"
    """The right number of tokens, each of them nothing but a blank."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The knobs of the mock server.

    Attributes:
        ttft_s: from the arrival of a request to its first token.
        itl_s: between two chunks that follow each other.
        spread: each of the two is drawn from (1 - spread, 1 + spread) times itself.
        headers_s: from the arrival of a request to the headers of its answer; None sends them with the first token.
        tokens_per_chunk: above 1 as under speculative decoding.
        reasoning_tokens: of the answer's tokens, the first so many come as reasoning (chat only).
        added_prompt_tokens: counted on top of the truth: another tokenizer, or a template.
        prefix_cache: tells how much of a prompt it had seen before (completions only).
        running_usage: knows `continuous_usage_stats`; else each request that asks for it gets the total only.
        token_ids: knows `return_token_ids`; else it is ignored.
        refuse_extras: answers 400 to a request that asks for either, as strict servers do.
        tokenizer: folder of the model whose tokenizer counts texts; by words where it is empty.
        fault: what goes wrong, in every `fault_every`-th request.
        seed: of the spread.
    """

    ttft_s: float = 0.02
    itl_s: float = 0.005
    spread: float = 0.0
    headers_s: float | None = None
    tokens_per_chunk: int = 1
    reasoning_tokens: int = 0
    added_prompt_tokens: int = 0
    prefix_cache: bool = False
    running_usage: bool = True
    token_ids: bool = True
    refuse_extras: bool = False
    tokenizer: str = ""
    model: str = "mock"
    fault: Fault = Fault.NONE
    fault_after: int = 2
    fault_every: int = 1
    seed: int = 0


class Write(NamedTuple):
    """Bytes to send `at_s` seconds after the request arrived, with the tokens that they carry; None closes."""

    at_s: float
    data: bytes | None
    tokens: int


Script = Iterator[Write]


def script_of(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    """Everything that is written in answer to a request, lazily and in order."""
    if behaviour.refuse_extras and (ask.running_usage or ask.token_ids is not None):
        return _whole(400, {"error": {"message": "unknown field continuous_usage_stats or return_token_ids"}})
    faulty = behaviour.fault is not Fault.NONE and (ask.serial + 1) % behaviour.fault_every == 0
    return SCRIPTS[behaviour.fault if faulty else Fault.NONE](behaviour, ask, rng)


def frame(data: bytes) -> bytes:
    """One chunk of HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def json_response(status: int, record: JsonValue) -> bytes:
    """A whole plain response."""
    body = json.dumps(record).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
DONE = frame(b"data: [DONE]\n\n")


class _Answer:
    """The events of one answer."""

    def __init__(self, behaviour: Behaviour, ask: Ask) -> None:
        self._ask = ask
        self._reasoning = behaviour.reasoning_tokens
        self._prompt_tokens = ask.prompt_tokens + behaviour.added_prompt_tokens
        self._running = ask.running_usage and behaviour.running_usage
        self._token_ids = ask.token_ids if behaviour.token_ids else None
        kind = "chat.completion.chunk" if ask.chat else "text_completion"
        self._head = f'data: {{"id":"cmpl-{ask.serial}","object":"{kind}","created":1,"model":"{behaviour.model}",'

    def usage(self, completion_tokens: int) -> str:
        prompt = self._prompt_tokens
        counts = f'"prompt_tokens":{prompt},"completion_tokens":{completion_tokens}'
        cached = self._ask.cached_tokens
        details = "" if cached is None else f',"prompt_tokens_details":{{"cached_tokens":{cached}}}'
        return f'"usage":{{{counts},"total_tokens":{prompt + completion_tokens}{details}}}'

    def tokens(self, first: int, count: int, *, finish: str | None, text: str | None = None) -> bytes:
        ask = self._ask
        text = (
            text
            if text is not None
            else "".join(f" w{ask.serial}" if i == 0 else " on" for i in range(first, first + count))
        )
        reason = "null" if finish is None else f'"{finish}"'
        if ask.chat:
            key = "reasoning_content" if first < self._reasoning else "content"
            choice = f'"delta":{{"{key}":"{text}"}}'
        else:
            choice = f'"text":"{text}","logprobs":null'
        ids = "" if self._token_ids is None else f',"token_ids":{list(self._token_ids[first : first + count])}'
        usage = "," + self.usage(first + count) if self._running else ""
        return frame(
            f'{self._head}"choices":[{{"index":0,{choice},"finish_reason":{reason}{ids}}}]{usage}}}\n\n'.encode()
        )

    def role(self) -> bytes:
        usage = "," + self.usage(0) if self._running else ""
        delta = '{"role":"assistant","content":""}'
        return frame(
            f'{self._head}"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]{usage}}}\n\n'.encode()
        )

    def total(self, completion_tokens: int) -> bytes:
        return frame(f'{self._head}"choices":[],{self.usage(completion_tokens)}}}\n\n'.encode())


def _stream(
    behaviour: Behaviour,
    ask: Ask,
    rng: random.Random,
    *,
    tokens: int,
    text: str | None = None,
    finish: str | None = "length",
) -> Script:
    """Headers and `tokens` tokens in chunks; `finish` None stops without one."""
    answer = _Answer(behaviour, ask)

    def drawn(seconds: float) -> float:
        return seconds * rng.uniform(1 - behaviour.spread, 1 + behaviour.spread) if behaviour.spread else seconds

    opening = HEADERS + answer.role() if ask.chat else HEADERS
    at_s = drawn(behaviour.ttft_s)
    if behaviour.headers_s is not None:
        yield Write(behaviour.headers_s, opening, 0)
        opening = b""
    step = behaviour.tokens_per_chunk
    for first in range(0, tokens, step):
        count = min(step, tokens - first)
        last = first + count == tokens
        yield Write(at_s, opening + answer.tokens(first, count, finish=finish if last else None, text=text), count)
        opening = b""
        if not last:
            at_s += drawn(behaviour.itl_s)


def _end_of(behaviour: Behaviour, ask: Ask, tokens: int, *, usage: bool = True) -> Write:
    total = _Answer(behaviour, ask).total(tokens) if usage else b""
    return Write(0.0, total + DONE + LAST_CHUNK, 0)


def _good(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=ask.output_tokens)
    yield _end_of(behaviour, ask, ask.output_tokens)


def _hang(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from ()


def _stall(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=behaviour.fault_after, finish=None)


def _die(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=behaviour.fault_after, finish=None)
    yield Write(0.0, None, 0)


def _fewer_tokens(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=behaviour.fault_after, finish="stop")
    yield _end_of(behaviour, ask, behaviour.fault_after)


def _error_event(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=behaviour.fault_after, finish=None)
    yield Write(0.0, frame(b'data: {"error":{"message":"out of memory","code":500}}\n\n') + DONE + LAST_CHUNK, 0)


def _endless(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    silent = Ask(ask.serial, ask.chat, ask.prompt_tokens, ask.output_tokens, ask.running_usage, token_ids=None)
    yield from _stream(behaviour, silent, rng, tokens=sys.maxsize, finish=None)


def _no_usage(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    silent = Ask(ask.serial, ask.chat, ask.prompt_tokens, ask.output_tokens, running_usage=False, token_ids=None)
    yield from _stream(behaviour, silent, rng, tokens=ask.output_tokens)
    yield _end_of(behaviour, ask, ask.output_tokens, usage=False)


def _blank(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield from _stream(behaviour, ask, rng, tokens=ask.output_tokens, text=" ")
    yield _end_of(behaviour, ask, ask.output_tokens)


def _garbage_stream(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield Write(behaviour.ttft_s, HEADERS + frame(b"data: <html>\n\nno \xff events\n\n") + LAST_CHUNK, 0)


def _garbage_http(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    yield Write(behaviour.ttft_s, b"\x16\x03\x01 this is not HTTP\r\n", 0)


def _status_429(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    return _whole(429, {"error": {"message": "too many requests"}})


def _status_500(behaviour: Behaviour, ask: Ask, rng: random.Random) -> Script:
    return _whole(500, {"error": {"message": "internal server error"}})


def _whole(status: int, record: JsonValue) -> Script:
    yield Write(0.0, json_response(status, record), 0)


SCRIPTS: dict[Fault, Callable[[Behaviour, Ask, random.Random], Script]] = {
    Fault.NONE: _good,
    Fault.HANG: _hang,
    Fault.STALL: _stall,
    Fault.DIE: _die,
    Fault.FEWER_TOKENS: _fewer_tokens,
    Fault.ERROR_EVENT: _error_event,
    Fault.ENDLESS: _endless,
    Fault.NO_USAGE: _no_usage,
    Fault.GARBAGE_STREAM: _garbage_stream,
    Fault.GARBAGE_HTTP: _garbage_http,
    Fault.STATUS_429: _status_429,
    Fault.STATUS_500: _status_500,
    Fault.BLANK: _blank,
}
