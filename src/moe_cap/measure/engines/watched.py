"""The forward passes of a server that somebody else runs, as far as a client can know them.

The tokens' arrivals tell the passes (`moe_cap.measure.engines.arrivals`) of a server whose scheduler is known, as long
as nobody else was served meanwhile and no pass gave a request several tokens. Both are asked of the server's own
counters. How many tokens it takes into one pass is not known, so every pass in which some prompt may have been
computed is a mixed one and counts in no figure: what is left are decode steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_cap.errors import ServerError
from moe_cap.measure.engines.arrivals import steps_of_arrivals
from moe_cap.measure.engines.base import Completion, EngineStep, Request
from moe_cap.measure.engines.passes import or_unaligned

Steps = tuple[EngineStep, ...]
SPECULATIVE = "the server decodes speculatively: a pass gives several tokens"
UNTOLD_STAGES = "vLLM does not tell how its devices share the model: with pipeline stages several batches are in flight"
SETTLES_S = 2.0
"""A server may add to its counters a moment after the last token has been read."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """How one kind of server is watched.

    Attributes:
        read: from requests, completions and the most tokens of a pass to the passes.
        generated: Prometheus counter of the tokens that it has generated for anybody.
        speculation: begins the names of counters that are there only where it decodes speculatively; None where
            `drafts` and the stream tell.
        drafts: counter of the drafts that it has verified, 0 where it does not speculate; None where there is none.
        switch: argument that makes it tell its counters; None where it always does.
        stages: why devices that may be pipeline stages hide its passes; None where it has no such stages.
    """

    read: Callable[[Sequence[Request], Sequence[Completion], int], Steps]
    generated: str
    speculation: str | None
    drafts: str | None
    switch: str | None
    stages: str | None


SCHEDULERS = {
    "vllm": Scheduler(steps_of_arrivals, "vllm:generation_tokens_total", "vllm:spec_decode", None, None, UNTOLD_STAGES),
    "llama-cpp": Scheduler(
        steps_of_arrivals,
        "llamacpp:tokens_predicted_total",
        None,
        "llamacpp:spec_decode_num_drafts_total",
        "--metrics",
        None,
    ),
}
"""By the name that the server gives itself."""


class Watching(Protocol):
    """A server from just before it is sent a load: what its passes are going to be read by."""

    def steps(
        self, requests: Sequence[Request], completions: Sequence[Completion], chunks: int, /
    ) -> tuple[Steps, str | None]:
        """The passes of the load that has just ended, or () and why they are not known.

        Args:
            requests: those that were sent.
            completions: theirs, in the same order.
            chunks: pieces in which their tokens came.
        """


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A server whose passes cannot be known; `reason` is None for one that never tells any."""

    reason: str | None

    def steps(
        self, _requests: Sequence[Request], _completions: Sequence[Completion], _chunks: int
    ) -> tuple[Steps, str | None]:
        """None, and why."""
        return (), self.reason


class Metrics(Protocol):
    """Where counters are read."""

    def metrics(self) -> str:
        """Prometheus text of /metrics; raises ServerError where there is none."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A server whose counters are read; see `Watching`.

    Attributes:
        generated: tokens that it had generated before the load.
        drafts: that it had verified before the load.
    """

    scheduler: Scheduler
    server: Metrics
    generated: float
    drafts: float

    def steps(
        self, requests: Sequence[Request], completions: Sequence[Completion], chunks: int
    ) -> tuple[Steps, str | None]:
        """The passes, where nobody else was served and no pass gave a request several tokens."""
        tokens = sum(done.num_tokens for done in completions)
        if any(len(done.token_s) != done.num_tokens for done in completions):
            return (), f"{tokens} tokens came in {chunks} pieces, and the server does not tell how many were in which"
        if self.scheduler.speculation is None and chunks != tokens:
            return (), f"{tokens} tokens came in {chunks} pieces, so a forward pass may have given several of a request"
        try:
            told = self._settled(tokens)
            others = counter(told, self.scheduler.generated) - self.generated - tokens
            drafts = _drafts(self.scheduler, told) - self.drafts
        except ServerError as error:
            return (), f"whether others were served cannot be told: {error}"
        if others:
            return (), f"the server counted {others:+.0f} tokens beside ours: others were served in the same passes"
        if drafts:
            return (), SPECULATIVE
        return or_unaligned(self.scheduler.read(requests, completions, 0))

    def _settled(self, expected: int) -> str:
        """Its counters once they hold the tokens of the load, or after a while."""
        until_s = time.monotonic() + SETTLES_S
        while True:
            told = self.server.metrics()
            since = counter(told, self.scheduler.generated) - self.generated
            if since >= expected or time.monotonic() > until_s:
                return told
            time.sleep(SETTLES_S / 20)


def watch(name: str | None, server: Metrics, *, may_be_stages: bool = False) -> Watching:
    """Begin to watch a server; never fails, and says why it cannot.

    Args:
        name: that it gives itself.
        server: tells its counters.
        may_be_stages: it has several devices and does not tell how they share the model.
    """
    scheduler = SCHEDULERS.get(name or "")
    if scheduler is None:
        return Unwatched(f"it is not known how {name or 'this server'} forms its forward passes")
    if may_be_stages and scheduler.stages is not None:
        return Unwatched(scheduler.stages)
    try:
        told = server.metrics()
        generated = counter(told, scheduler.generated)
    except ServerError as error:
        switch = f"; start it with {scheduler.switch}" if scheduler.switch else ""
        return Unwatched(f"whether others were served cannot be told: {error}{switch}")
    if scheduler.speculation is not None and f"\n{scheduler.speculation}" in f"\n{told}":
        return Unwatched(SPECULATIVE)
    try:
        drafts = _drafts(scheduler, told)
    except ServerError as error:
        return Unwatched(f"whether it decodes speculatively cannot be told: {error}")
    return Watch(scheduler, server, generated, drafts)


def _drafts(scheduler: Scheduler, told: str) -> float:
    return 0.0 if scheduler.drafts is None else counter(told, scheduler.drafts)


def counter(text: str, name: str) -> float:
    """Sum of a counter over its labels in Prometheus' text format.

    Raises:
        ServerError: it is not there.
    """
    values = [line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    if not values:
        raise ServerError(f"/metrics has no {name}")
    return sum(map(float, values))
