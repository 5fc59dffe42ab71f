"""How a request changes: each step takes a request and returns the next one. No store, no clock, no chance.

A request runs under exactly one lease, every lease ends as exactly one `Attempt`, and only `claimed` makes a lease.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from moe_cap.errors import RequestStateError
from moe_cap.queue.record import Attempt, Lease, Outcome, Progress, Request, State

LOG_LINES = 20
LOG_LINE_CHARACTERS = 300
REASON_CHARACTERS = 4000


def submitted(request_id: str, body: Mapping[str, object], *, now_s: float, ticket: str) -> Request:
    """Make a request that waits."""
    return Request(request_id, State.PENDING, dict(body), submitted_at=now_s, ticket=ticket)


def resubmitted(old: Request, body: Mapping[str, object], *, now_s: float, ticket: str) -> Request:
    """Let a failed or cancelled request wait again, with a clean count of attempts and its history."""
    return replace(submitted(old.id, body, now_s=now_s, ticket=ticket), history=old.history)


def claimed(request: Request, *, lease_id: str, worker: str, now_s: float, lease_s: float, beat: str) -> Request:
    """Give a pending request to a worker; what a hand that moved it from another folder left over is cleared."""
    lease = Lease(lease_id, worker, now_s, now_s + lease_s, beat)
    waiting = replace(request, reason=None, result_ids=(), ended_at=None)
    return replace(waiting, state=State.RUNNING, attempts=request.attempts + 1, lease=lease)


def renewed(request: Request, progress: Progress | None, *, now_s: float, lease_s: float, beat: str) -> Request:
    """Lengthen the lease and keep the holder's last word, cut to what a record can bear."""
    said = None if progress is None else _cut(progress)
    lease = replace(_lease_of(request), expires_at=now_s + lease_s, beat=beat, progress=said)
    return replace(request, lease=lease)


def finished(request: Request, result_ids: Sequence[str], *, now_s: float) -> Request:
    """End with results."""
    over = _attempt_ended(request, Outcome.FINISHED, None, now_s=now_s)
    return replace(over, state=State.FINISHED, result_ids=tuple(result_ids), ended_at=now_s)


def failed(request: Request, reason: str, *, now_s: float, attempts_left: bool) -> Request:
    """End an attempt that went wrong; wait for the next one if there is one."""
    reason = reason[:REASON_CHARACTERS]
    over = _attempt_ended(request, Outcome.FAILED, reason, now_s=now_s)
    if attempts_left:
        return replace(over, state=State.PENDING)
    return replace(over, state=State.FAILED, reason=reason, ended_at=now_s)


def expired(request: Request, *, now_s: float, max_attempts: int) -> Request:
    """Take a request from a worker that stopped renewing its lease."""
    silent = f"the worker {_lease_of(request).worker} stopped answering"
    over = _attempt_ended(request, Outcome.EXPIRED, silent, now_s=now_s)
    if request.attempts < max_attempts:
        return replace(over, state=State.PENDING)
    reason = (
        f"Given up after {request.attempts} attempts; in the last one {silent}. "
        "The evaluation may bring its machine down, for example by running out of memory."
    )
    return replace(over, state=State.FAILED, reason=reason, ended_at=now_s)


def released(request: Request, *, now_s: float) -> Request:
    """Give a request back undone, without counting the attempt."""
    over = _attempt_ended(request, Outcome.RELEASED, None, now_s=now_s)
    return replace(over, state=State.PENDING, attempts=max(0, request.attempts - 1))


def cancelled(request: Request, *, now_s: float) -> Request:
    """End a request that waits or runs because somebody said so; a cancelled one stays as it is.

    Raises:
        RequestStateError: it is over already.
    """
    if request.state is State.CANCELLED:
        return request
    if request.state in {State.FINISHED, State.FAILED}:
        raise RequestStateError(f"request {request.id} cannot be cancelled: it {request.state}", state=request.state)
    over = _attempt_ended(request, Outcome.CANCELLED, None, now_s=now_s) if request.lease else request
    return replace(over, state=State.CANCELLED, ended_at=now_s)


def withdrawn(request: Request, *, now_s: float) -> Request:
    """End a request that nobody runs yet; a cancelled one stays as it is.

    Raises:
        RequestStateError: a worker has it, or it is over already.
    """
    if request.state is State.RUNNING:
        message = f"request {request.id} runs already: `moe-cap queue {request.id} --cancel` ends it"
        raise RequestStateError(message, state=request.state)
    return cancelled(request, now_s=now_s)


def _cut(progress: Progress) -> Progress:
    """A fraction or time that is no number is unknown; a log is as long as a record can bear."""
    fraction, eta_s = progress.fraction, progress.eta_s
    return Progress(
        progress.stage,
        min(1.0, max(0.0, fraction)) if fraction is not None and math.isfinite(fraction) else None,
        max(0.0, eta_s) if eta_s is not None and math.isfinite(eta_s) else None,
        tuple(line[:LOG_LINE_CHARACTERS] for line in progress.log_tail[-LOG_LINES:]),
    )


def _lease_of(request: Request) -> Lease:
    if request.lease is None:
        raise RequestStateError(f"request {request.id} is not running, it is {request.state}", state=request.state)
    return request.lease


def _attempt_ended(request: Request, outcome: Outcome, reason: str | None, *, now_s: float) -> Request:
    lease = _lease_of(request)
    attempt = Attempt(lease.id, lease.worker, lease.claimed_at, now_s, outcome, reason)
    return replace(request, lease=None, history=(*request.history, attempt))
