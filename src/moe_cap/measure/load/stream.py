"""From the bytes of an event stream to chunks, counts and text (WHATWG HTML, section 9.2, server-sent events)."""

from __future__ import annotations

import json
from array import array
from typing import Any

from moe_cap.measure.load.events import Failure, FailureKind, TokenCounting, Usage

DONE = b"[DONE]"
SHOWN = 200
"""Bytes of a bad answer that a message quotes."""


class StreamReader:
    """Reads one response's body, fragment by fragment, with the time each one arrived at.

    Attributes:
        chunk_ns: arrival of every event that carried tokens.
        chunk_tokens: tokens in each of them.
        done: the stream said that it is complete.
        failure: what was wrong with it; nothing after that is read.
    """

    def __init__(self) -> None:
        self.chunk_ns = array("q")
        self.chunk_tokens = array("l")
        self.first_answer_ns: int | None = None
        self.reasoning_tokens = 0
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.failure: Failure | None = None
        self.done = False
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._counting = TokenCounting.UNKNOWN
        self._counted = 0
        self._rest = b""
        self._arrived_ns = 0

    @property
    def text(self) -> str:
        """The answer, reasoning left out."""
        return "".join(self._text)

    @property
    def token_ids(self) -> tuple[int, ...] | None:
        """The answer's token ids, None where the server did not tell them."""
        return tuple(self._token_ids) if self._counting is TokenCounting.TOKEN_IDS else None

    @property
    def counting(self) -> TokenCounting:
        """How far `chunk_tokens` can be trusted."""
        confirmed = self.usage is not None and self.usage.completion_tokens == sum(self.chunk_tokens)
        if self._counting is TokenCounting.UNKNOWN and confirmed:
            return TokenCounting.ONE_PER_CHUNK
        return self._counting

    def feed(self, arrived_ns: int, fragment: bytes) -> None:
        """Read what arrived at `arrived_ns`; an event that is split counts when its last byte is there."""
        self._arrived_ns = arrived_ns
        data = self._rest + fragment
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        events = data.split(b"\n\n")
        self._rest = events.pop()
        for event in events:
            if self.failure is None:
                self._event(arrived_ns, event)

    def end(self) -> None:
        """The response is over: judge it as a whole."""
        if self.failure is None and self._rest.strip():
            self._event(self._arrived_ns, self._rest)  # servers leave the last blank line out; half an event is garbage
        if self.failure is None and not self.done and self.finish_reason is None:
            self.failure = Failure(
                FailureKind.DIED, f"the stream ended after {len(self.chunk_ns)} chunks without a finish"
            )
        if self.failure is None and not self.chunk_ns:
            self.failure = Failure(FailureKind.EMPTY, "the answer was complete and had no token")

    def _event(self, arrived_ns: int, event: bytes) -> None:
        for line in event.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data(arrived_ns, value.strip())
            elif name not in {b"", b"event", b"id", b"retry"}:
                self.failure = Failure(FailureKind.GARBAGE, f"not an event stream: {_quote(line)}")
                return

    def _data(self, arrived_ns: int, data: bytes) -> None:
        if data == DONE:
            self.done = True
            return
        try:
            record = json.loads(data)
            if record.get("error") is not None:
                self.failure = Failure(FailureKind.ERROR_EVENT, _quote(data))
                return
            choices = record["choices"]
            usage = parse_usage(record.get("usage"))
            if choices:
                self._choice(arrived_ns, choices[0], usage)
            if usage is not None:
                self.usage = usage
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self.failure = Failure(
                FailureKind.GARBAGE, f"an event that is no completion chunk ({error!r}): {_quote(data)}"
            )

    def _choice(self, arrived_ns: int, choice: dict[str, Any], usage: Usage | None) -> None:
        delta = choice.get("delta") or {}
        answer = choice.get("text") or delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        finish_reason = choice.get("finish_reason")
        self.finish_reason = finish_reason or self.finish_reason
        tokens = self._tokens_of(choice, usage, bool(answer or reasoning), ended=finish_reason is not None)
        if answer:
            self._text.append(answer)
        if not tokens:
            return
        self.chunk_ns.append(arrived_ns)
        self.chunk_tokens.append(tokens)
        if reasoning:
            self.reasoning_tokens += tokens
        elif self.first_answer_ns is None:
            self.first_answer_ns = arrived_ns

    def _tokens_of(self, choice: dict[str, Any], usage: Usage | None, has_text: bool, *, ended: bool) -> int:
        token_ids = choice.get("token_ids")
        if token_ids is not None:
            self._counting = TokenCounting.TOKEN_IDS
            self._token_ids.extend(token_ids)
            return len(token_ids)
        # A total in the very last chunk is no running count: servers put it there that tell it once.
        if usage is not None and not ended and self._counting is TokenCounting.UNKNOWN and not self.chunk_ns:
            self._counting = TokenCounting.RUNNING_USAGE
        if self._counting is TokenCounting.RUNNING_USAGE and usage is not None:
            tokens, self._counted = usage.completion_tokens - self._counted, usage.completion_tokens
            return max(tokens, 0)
        return int(has_text)


def parse_usage(record: dict[str, Any] | None) -> Usage | None:
    """The `usage` object of a response; None when there is none."""
    if not record:
        return None
    prompt_details = record.get("prompt_tokens_details") or {}
    completion_details = record.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=int(record["prompt_tokens"]),
        completion_tokens=int(record["completion_tokens"]),
        cached_tokens=prompt_details.get("cached_tokens"),
        reasoning_tokens=completion_details.get("reasoning_tokens"),
    )


def _quote(data: bytes) -> str:
    return data[:SHOWN].decode(errors="replace").strip()
