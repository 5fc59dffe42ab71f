"""One run of load against a server: warm-up, the timed part, and the verdict on it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from moe_cap.errors import InvalidInputError, InvalidRunError, LateClientError, ServerError
from moe_cap.measure.load.client import Limits, find_peer
from moe_cap.measure.load.connection import Peer
from moe_cap.measure.load.drive import Around, Order, Progress, Saturation, Share
from moe_cap.measure.load.events import RequestEvents, TokenCounting
from moe_cap.measure.load.loop import allow_many_sockets
from moe_cap.measure.load.request import Prompt, Target, encode_request
from moe_cap.measure.load.schedule import Arrivals, ClosedLoop
from moe_cap.measure.load.validity import Rules, broken_rules, client_limits
from moe_cap.measure.load.workers import drive_all, split_share
from moe_cap.metrics.latency import RequestTiming
from moe_cap.result import RawRequest

WARM_UP_CONCURRENCY = 8
"""Of an open loop's warm-up, which has no concurrency of its own."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent, when, and what is believed.

    Attributes:
        prompts: one request each, in order.
        warm_up: requests of the load's shape that are sent and drained before; other prompts than the timed ones, or
            the server's prefix cache would answer those.
        workers: processes; more than one when a single core saturates.
        run_limit_s: the timed part must end within it.
        run_id: begins the id of every request.
    """

    target: Target
    prompts: Sequence[Prompt]
    arrivals: Arrivals
    warm_up: Sequence[Prompt] = ()
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)
    workers: int = 1
    run_limit_s: float | None = None
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Everything that happened, and whether it can be believed.

    Attributes:
        started_s: start of the timed part on `time.monotonic()`, which all times count from.
        requests: in the order of the plan, failed ones included.
        warm_up: the requests before it; in no figure.
        saturation: of each worker.
        invalid: every rule that was broken, for people; empty for a valid run.
        late_client: those of them that the client broke.
    """

    started_s: float
    arrivals: Arrivals
    requests: tuple[RequestEvents, ...]
    warm_up: tuple[RequestEvents, ...]
    saturation: tuple[Saturation, ...]
    invalid: tuple[str, ...]
    late_client: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[RequestEvents, ...]:
        """Requests that did not complete."""
        return tuple(request for request in self.requests if request.failure is not None)

    @property
    def timings(self) -> tuple[RequestTiming, ...]:
        """What `metrics.latency` computes from: arrivals of chunks, so a gap is one that a reader of the stream saw."""
        planned = self.arrivals.concurrency is None
        return tuple(request.timing(planned=planned) for request in self.requests)

    @property
    def token_times_known(self) -> bool:
        """Whether every arrival belongs to a known number of tokens; else gaps are those of chunks."""
        return all(r.counting is not TokenCounting.UNKNOWN for r in self.requests if r.failure is None)

    def require_valid(self) -> LoadRun:
        """This run, if it can be believed.

        Raises:
            LateClientError: nothing was wrong but the client.
            InvalidRunError: says every rule that it broke.
        """
        if self.invalid:
            kind = LateClientError if self.invalid == self.late_client else InvalidRunError
            raise kind("; ".join(self.invalid))
        return self

    def raw_requests(self, repeat: int = 0) -> tuple[RawRequest, ...]:
        """The records that a result keeps: an arrival for each token, times since the start of the run."""
        return tuple(
            RawRequest(
                sent_s=request.sent_s,
                intended_s=request.intended_s if self.arrivals.concurrency is None else None,
                token_s=request.token_s,
                ended_s=request.ended_s,
                input_tokens=request.input_tokens or 0,
                output_tokens=request.output_tokens,
                error=None if request.failure is None else str(request.failure),
                repeat=repeat,
                cached_tokens=None if request.usage is None else request.usage.cached_tokens,
            )
            for request in self.requests
        )


def run_load(plan: LoadPlan, progress: Progress = lambda _done, _total: None, around: Around = nullcontext) -> LoadRun:
    """Warm up, carry the plan, and judge it.

    Args:
        plan: what is sent.
        progress: told of every timed request that is over.
        around: holds the timed part, from the first send to the last end, and nothing else of all this.

    Raises:
        InvalidInputError: the plan cannot be carried.
        ServerError: more requests failed than the rules bear; it says what the server did.
        RunTimeoutError: the timed part did not end within its limit.
    """
    _check(plan)
    peer = find_peer(plan.target)
    allow_many_sockets()
    warm_up = _warm_up(plan, peer)
    share = _share(plan, peer, plan.prompts, plan.arrivals, "r")
    started_ns, parts = drive_all(split_share(share, plan.workers), progress, around)
    for part in parts:
        if part.given_up is not None:
            raise type(part.given_up)(f"{plan.target.url}: {part.given_up}")
    requests = tuple(sorted((request for part in parts for request in part.requests), key=lambda r: r.prompt_index))
    _refuse_too_many_failures(plan, requests)
    saturation = tuple(part.saturation for part in parts)
    return LoadRun(
        started_s=started_ns / 1e9,
        arrivals=plan.arrivals,
        requests=requests,
        warm_up=warm_up,
        saturation=saturation,
        invalid=broken_rules(requests, plan.arrivals, saturation, plan.rules, exact_lengths=plan.target.ignore_eos),
        late_client=tuple(client_limits(requests, saturation, plan.rules)),
    )


def _check(plan: LoadPlan) -> None:
    if not plan.prompts:
        raise InvalidInputError("a plan without prompts measures nothing")
    plan.arrivals.check(len(plan.prompts))


def _warm_up(plan: LoadPlan, peer: Peer) -> tuple[RequestEvents, ...]:
    if not plan.warm_up:
        return ()
    arrivals = ClosedLoop(min(plan.arrivals.concurrency or WARM_UP_CONCURRENCY, len(plan.warm_up)))
    _, (driven,) = drive_all([_share(plan, peer, plan.warm_up, arrivals, "w")], lambda _done, _total: None)
    if driven.given_up is not None:
        raise type(driven.given_up)(f"{plan.target.url}: in the warm-up, {driven.given_up}")
    return driven.requests


def _share(plan: LoadPlan, peer: Peer, prompts: Sequence[Prompt], arrivals: Arrivals, part: str) -> Share:
    ids = [f"{plan.run_id}-{part}{index}" for index in range(len(prompts))]
    orders = tuple(
        Order(request_id, index, prompt, encode_request(plan.target, prompt, request_id))
        for index, (request_id, prompt) in enumerate(zip(ids, prompts, strict=True))
    )
    return Share(peer, plan.limits, orders, arrivals, int(plan.rules.max_failed_share * len(orders)), plan.run_limit_s)


def _refuse_too_many_failures(plan: LoadPlan, requests: Sequence[RequestEvents]) -> None:
    """Workers bear the share each; together they may be above it."""
    failures = [request.failure for request in requests if request.failure is not None]
    if len(failures) > plan.rules.max_failed_share * len(requests):
        raise ServerError(
            f"{plan.target.url}: {len(failures)} of {len(requests)} requests failed, the last one: {failures[-1]}"
        )
