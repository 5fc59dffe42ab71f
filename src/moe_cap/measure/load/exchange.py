"""One request under way: what was sent and what came back so far."""

from __future__ import annotations

from moe_cap.measure.load.events import Failure

EVENTS_PER_TOKEN, EVENTS_BESIDE = 2, 16
"""Of a stream: one event for each token at most, and some of role, finish, usage; twice that is no end."""


class Exchange:
    """One request and what came back, while it is under way; times are of `time.monotonic_ns`."""

    __slots__ = (
        "connected_ns", "ended_ns", "events", "failure", "fragments", "headers_ns", "heard_ns", "id", "intended_ns",
        "most_events", "payload", "prompt_index", "sent_ns", "status",
    )  # fmt: skip

    def __init__(
        self, request_id: str, prompt_index: int, payload: bytes, intended_ns: int, output_tokens: int
    ) -> None:
        self.id = request_id
        self.events = 0
        self.most_events = EVENTS_PER_TOKEN * output_tokens + EVENTS_BESIDE
        self.prompt_index = prompt_index
        self.payload = payload
        self.intended_ns = intended_ns
        self.sent_ns = 0
        self.connected_ns: int | None = None
        self.headers_ns: int | None = None
        self.heard_ns = 0
        self.ended_ns = 0
        self.status: int | None = None
        self.fragments: list[tuple[int, bytes]] = []
        self.failure: Failure | None = None
