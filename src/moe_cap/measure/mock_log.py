"""What the mock server did for each request, which clients are judged by."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic_ns, time_ns

from pydantic import JsonValue


@dataclass(slots=True)
class ServedRequest:
    """What the server did for one request; times of `time.monotonic_ns`.

    Attributes:
        received_ns: when the kernel had the last byte of the request.
        token_ns: when the bytes of each token were handed to the kernel, taken before the call.
        late_ns: how late each of those writes was against the script.
        ended_ns: when the answer was over; None while it is not, or when the client left.
    """

    serial: int
    id: str
    received_ns: int
    token_ns: array[int] = field(default_factory=lambda: array("q"))
    late_ns: array[int] = field(default_factory=lambda: array("q"))
    ended_ns: int | None = None


def tell(log: Sequence[ServedRequest]) -> dict[str, JsonValue]:
    """The log as JSON: seconds of the monotonic clock, and what the realtime clock showed at the same moment."""
    requests: list[JsonValue] = [
        {
            "serial": served.serial,
            "id": served.id,
            "received_s": served.received_ns / 1e9,
            "token_s": [at_ns / 1e9 for at_ns in served.token_ns],
            "late_s": [late_ns / 1e9 for late_ns in served.late_ns],
            "ended_s": None if served.ended_ns is None else served.ended_ns / 1e9,
        }
        for served in log
    ]
    return {"monotonic_s": monotonic_ns() / 1e9, "realtime_s": time_ns() / 1e9, "requests": requests}
