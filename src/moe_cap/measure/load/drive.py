"""Carry one plan, or one worker's share of it, through one client."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic_ns

from moe_cap.errors import MeasurementError, RunTimeoutError, ServerError
from moe_cap.measure.load.client import Client, Limits
from moe_cap.measure.load.connection import Peer
from moe_cap.measure.load.events import FailureKind, RequestEvents
from moe_cap.measure.load.exchange import Exchange
from moe_cap.measure.load.request import Prompt
from moe_cap.measure.load.schedule import Arrivals
from moe_cap.measure.load.stream import StreamReader

Progress = Callable[[int, int], None]
"""Told how many requests are over, of how many."""
Around = Callable[[], AbstractContextManager[None]]
"""Entered right before the first send and left right after the last end: for counters that are read around a load."""


@dataclass(frozen=True, slots=True)
class Order:
    """One request, encoded before the run: nothing is left to do at the moment of sending."""

    id: str
    prompt_index: int
    prompt: Prompt
    payload: bytes


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker does. `max_failures` failed requests are borne; at the next one the share is given up."""

    peer: Peer
    limits: Limits
    orders: tuple[Order, ...]
    arrivals: Arrivals
    max_failures: int
    run_limit_s: float | None = None


@dataclass(frozen=True, slots=True)
class Saturation:
    """How busy the client itself was.

    Attributes:
        beat_lag_s: how late each heartbeat of the loop was, every 5 ms.
        read_lag_s: how long each arrival lay in the kernel before it was read; empty where the kernel does not stamp.
        busy_share: share of the time in which the loop was serving sockets or sending: near 1 it is saturated.
        cpu_share: processor time of this process, reading the answers included, over wall time.
    """

    beat_lag_s: tuple[float, ...]
    read_lag_s: tuple[float, ...]
    busy_share: float
    cpu_share: float


@dataclass(frozen=True, slots=True)
class Driven:
    """What one share gave, in the order in which the requests were planned; `given_up` tells why it was not all."""

    started_ns: int
    requests: tuple[RequestEvents, ...]
    saturation: Saturation
    given_up: MeasurementError | None


class Driver:
    """Sends the orders of a share when their time has come, and keeps what comes back."""

    def __init__(self, share: Share, progress: Progress) -> None:
        self._share = share
        self._started_ns = 0
        self._progress = progress
        self._client = Client(share.peer, share.limits, self._ended, self._read)
        self._next = 0
        self._requests: dict[int, RequestEvents] = {}
        self._order_of: dict[str, int] = {order.id: index for index, order in enumerate(share.orders)}
        self._failures = 0
        self._given_up: MeasurementError | None = None

    def drive(self, start: Callable[[], int], around: Around) -> Driven:
        """Run the share to its end, from the `monotonic_ns` that `start` gives inside of `around`."""
        collecting = gc.isenabled()
        gc.disable()  # a collection in the middle of a run is a pause that looks like the server's
        try:
            with around():
                self._started_ns = start()
                spent_ns, spent_cpu_s = self._serve()
            self._client.read_all()
        finally:
            self._client.close()
            if collecting:
                gc.enable()
        loop = self._client.loop
        saturation = Saturation(
            beat_lag_s=_seconds(self._client.beat_lags_ns),
            read_lag_s=_seconds(self._client.read_lags_ns),
            busy_share=1 - (loop.waited_ns + loop.idle_ns) / spent_ns,
            cpu_share=spent_cpu_s * 1e9 / spent_ns,
        )
        requests = tuple(self._requests[index] for index in sorted(self._requests))
        return Driven(self._started_ns, requests, saturation, self._given_up)

    def _serve(self) -> tuple[int, float]:
        """Run the loop until the last request is over: its nanoseconds and its seconds of processor time."""
        began_ns, began_cpu_s = monotonic_ns(), time.process_time()
        self._begin()
        if self._share.run_limit_s is not None:
            limit_ns = int(self._share.run_limit_s * 1e9)
            self._client.loop.call_at(self._started_ns + limit_ns, self._out_of_time)
        if self._share.orders:
            self._client.loop.run()
        return max(monotonic_ns() - began_ns, 1), time.process_time() - began_cpu_s

    def _begin(self) -> None:
        places = self._share.arrivals.concurrency
        if places is None:
            self._client.start()
            self._arm()
        else:
            self._client.loop.call_at(self._started_ns, lambda: self._fill(places))

    def _fill(self, places: int) -> None:
        """Take every place of a closed loop, one after another: each is due when the one before it has been taken.

        The heart beats from then on: while connections are opened the loop has no turn, and nobody waits for it.
        """
        due_ns = self._started_ns
        for _ in range(places):
            self._send(due_ns)
            due_ns = monotonic_ns()
        self._client.start()

    def _due_ns(self) -> int | None:
        """When the next request is to be sent; None when it waits for another to end, or when there is none."""
        if self._given_up is not None or self._next == len(self._share.orders):
            return None
        due_s = self._share.arrivals.due_s(self._next)
        return None if due_s is None else self._started_ns + int(due_s * 1e9)

    def _arm(self) -> None:
        due_ns = self._due_ns()
        if due_ns is not None:
            self._client.loop.call_at(due_ns, lambda: self._arrive(due_ns))

    def _arrive(self, due_ns: int) -> None:
        if self._given_up is None:
            self._send(due_ns)
            self._arm()

    def _send(self, intended_ns: int) -> None:
        order = self._share.orders[self._next]
        self._next += 1
        tokens = order.prompt.output_tokens
        self._client.send(Exchange(order.id, order.prompt_index, order.payload, intended_ns, tokens))

    def _ended(self, exchange: Exchange) -> None:
        if exchange.failure is None:
            self._go_on(exchange.ended_ns)
        else:  # through the loop: a server that refuses at once must not be called out of its own refusal
            self._client.loop.call_at(exchange.ended_ns, lambda: self._go_on(exchange.ended_ns))

    def _go_on(self, freed_ns: int) -> None:
        """A place is free: give it to the next request if that waits for one, and stop after the last."""
        left = self._next < len(self._share.orders) and self._given_up is None
        if left and self._due_ns() is None:
            self._send(freed_ns)
        elif not left and self._client.in_flight == 0:
            self._client.loop.stop()

    def _read(self, exchange: Exchange, reader: StreamReader) -> None:
        index = self._order_of[exchange.id]
        self._requests[index] = events_of(exchange, reader, self._share.orders[index].prompt, self._started_ns)
        self._progress(len(self._requests), len(self._share.orders))
        failure = exchange.failure
        if failure is not None and failure.kind is not FailureKind.ABANDONED:
            self._failures += 1
            if self._failures > self._share.max_failures and self._given_up is None:
                self._give_up(
                    ServerError(f"{self._failures} of {len(self._requests)} requests failed, the last one: {failure}")
                )

    def _out_of_time(self) -> None:
        self._give_up(RunTimeoutError(f"the run did not end within {self._share.run_limit_s:g} s"))

    def _give_up(self, reason: MeasurementError) -> None:
        self._given_up = reason
        self._client.abandon("the run was given up")
        self._client.loop.stop()


def drive(share: Share, start: Callable[[], int], progress: Progress, around: Around = nullcontext) -> Driven:
    """Carry a share that starts at the `time.monotonic_ns` that `start` gives, in this thread, to its end."""
    return Driver(share, progress).drive(start, around)


def events_of(exchange: Exchange, reader: StreamReader, prompt: Prompt, started_ns: int) -> RequestEvents:
    """The finished record of one exchange, on the run's clock."""

    def at(when_ns: int) -> float:
        return (when_ns - started_ns) / 1e9

    def at_if(when_ns: int | None) -> float | None:
        return None if when_ns is None else at(when_ns)

    complete = exchange.failure is None
    return RequestEvents(
        id=exchange.id,
        prompt_index=exchange.prompt_index,
        intended_s=at(exchange.intended_ns),
        sent_s=at(exchange.sent_ns),
        connected_s=at_if(exchange.connected_ns),
        headers_s=at_if(exchange.headers_ns),
        chunk_s=tuple(at(arrived_ns) for arrived_ns in reader.chunk_ns),
        chunk_tokens=tuple(reader.chunk_tokens),
        counting=reader.counting,
        ended_s=at(reader.chunk_ns[-1] if complete else exchange.ended_ns),
        status=exchange.status,
        finish_reason=reader.finish_reason,
        usage=reader.usage,
        first_answer_s=at_if(reader.first_answer_ns),
        reasoning_tokens=reader.reasoning_tokens,
        text=reader.text,
        token_ids=reader.token_ids,
        failure=exchange.failure,
        asked_input_tokens=prompt.input_tokens,
        asked_output_tokens=prompt.output_tokens,
    )


def _seconds(nanoseconds: Sequence[int] | array[int]) -> tuple[float, ...]:
    return tuple(value / 1e9 for value in nanoseconds)
