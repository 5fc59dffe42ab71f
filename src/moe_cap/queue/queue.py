"""The queue: requests that wait, run under a lease, and end once, whatever workers, networks and stores do meanwhile.

Every change is one commit against the revision it was decided on (`store.transact`), so of several workers one gets a
request. A lease that is not renewed runs out, and the next claim takes the request along. Holders are fenced by the id
of their lease: who lost it hears `LeaseLostError` at the next write and must publish nothing. docs/queue.md has the
whole protocol and its limits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random, SystemRandom

from moe_cap.errors import (
    DuplicateSubmissionError,
    InvalidInputError,
    LeaseLostError,
    NotFoundError,
    RecordError,
)
from moe_cap.queue import transitions
from moe_cap.queue.record import Progress, Request, State, check_id, request_bytes
from moe_cap.queue.shelf import Shelf
from moe_cap.store import Change, Store, transact, view

LEASE_HEARTBEATS = 3
"""A lease outlives two heartbeats that fail."""

Step = Callable[[Request | None], Request]


class Queue:
    """Requests in a store. Safe to share between threads; any number of processes may work on one store.

    Beside what each method names, all raise StoreError: BusyError while the store does not answer, ConflictError when
    others were faster many times, OutcomeUnknownError when a write could not be looked up afterwards.
    """

    def __init__(
        self,
        store: Store,
        *,
        lease_s: float | None = None,
        max_attempts: int = 3,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: where the records lie.
            lease_s: how long a claim lasts without a heartbeat; None takes three of the store's heartbeats. Clocks of
                the workers must agree to well within it.
            max_attempts: attempts that may fail or fall silent before a request fails for good.
            clock: seconds since 1970.
            sleep: waits that many seconds, between attempts to commit.
            rng: for nonces and pauses; None takes the system's, which forked processes do not share.
        """
        lease_s = LEASE_HEARTBEATS * store.heartbeat_s if lease_s is None else lease_s
        if lease_s <= store.heartbeat_s or max_attempts < 1:
            raise InvalidInputError(
                f"lease_s={lease_s:g} and max_attempts={max_attempts}: a lease must outlive the store's pause between "
                f"heartbeats ({store.heartbeat_s:g} s), and there must be an attempt"
            )
        self.lease_s = lease_s
        self.max_attempts = max_attempts
        self._store = store
        self._shelf = Shelf(store)
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or SystemRandom()

    def submit(self, body: Mapping[str, object], *, request_id: str) -> Request:
        """Let `body` wait for a worker; a request that failed or was cancelled waits anew.

        Raises:
            DuplicateSubmissionError: it waits, runs or finished already.
            InvalidInputError: an id that cannot be a file name, or a body that is not JSON.
        """
        check_id(request_id)
        try:
            body = json.loads(json.dumps(body, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"the submission cannot be stored as JSON: {error}") from error
        now_s, ticket = self._clock(), self._nonce()

        def step(old: Request | None) -> Request:
            if old is None:
                return transitions.submitted(request_id, body, now_s=now_s, ticket=ticket)
            if old.state in {State.FAILED, State.CANCELLED}:
                return transitions.resubmitted(old, body, now_s=now_s, ticket=ticket)
            message = f"this was submitted before, as request {request_id}; it is {old.state}"
            raise DuplicateSubmissionError(message, request_id=request_id, state=old.state)

        return self._update(request_id, step, lambda found: found.ticket == ticket, "submit")

    def requests(self, state: State | None = None) -> list[Request]:
        """Return all requests, or those in `state`, oldest first; files that are none are left to `problems`."""
        states = tuple(State) if state is None else (state,)
        return view(self._store, lambda rev: self._shelf.all(rev, states)[0])

    def problems(self) -> list[RecordError]:
        """Return what lies in the state folders and cannot be used as a request, each with its path and why."""
        return view(self._store, lambda rev: self._shelf.all(rev)[1])

    def get(self, request_id: str) -> Request:
        """Return one request.

        Raises:
            NotFoundError: there is none of this id.
            RecordError: its file cannot be used.
        """
        found = view(self._store, lambda rev: self._shelf.find(request_id, rev))
        if found is None:
            raise NotFoundError(f"there is no request {request_id} in this queue")
        return found

    def position(self, request_id: str) -> int | None:
        """Return the place in the line, 1 for the next; None for a request that does not wait."""
        waiting = [request.id for request in self.requests(State.PENDING)]
        return waiting.index(request_id) + 1 if request_id in waiting else None

    def claim(self, worker: str, accepts: Callable[[Request], bool] = lambda _: True) -> Request | None:
        """Take the oldest pending request that `accepts` likes, and whatever leases ran out, in one commit.

        Returns:
            The request with its new lease, or None if nothing fits.
        """
        lease_id, beat = self._nonce(), self._nonce()
        taken: list[Request] = []

        def plan(rev: str) -> Change | None:
            taken.clear()
            now_s = self._clock()
            known, _ = self._shelf.all(rev, (State.PENDING, State.RUNNING))
            moves = {
                request.id: (request, self._reaped(request, now_s)) for request in known if _is_over(request, now_s)
            }
            current = [moves[request.id][1] if request.id in moves else request for request in known]
            best = next((each for each in current if each.state is State.PENDING and accepts(each)), None)
            if best is not None:
                signed = {"lease_id": lease_id, "worker": worker, "beat": beat}
                mine = transitions.claimed(best, **signed, now_s=now_s, lease_s=self.lease_s)
                old = moves[best.id][0] if best.id in moves else best
                moves[best.id] = (old, mine)
                taken.append(mine)
            return _change(list(moves.values()), _claim_message(worker, moves, taken))

        def landed(rev: str) -> bool:
            running, _ = self._shelf.all(rev, (State.RUNNING,))
            taken[:] = [request for request in running if request.lease and request.lease.id == lease_id]
            return bool(taken)

        self._transact(plan, landed)
        return taken[0] if taken else None

    def heartbeat(self, request: Request, progress: Progress | None) -> Request:
        """Lengthen the lease and show how far the work is; no more often than `store.heartbeat_s`.

        Raises:
            LeaseLostError: stop, publish nothing.
        """
        now_s, beat = self._clock(), self._nonce()
        timing = {"now_s": now_s, "lease_s": self.lease_s}
        return self._held(
            request,
            lambda mine: transitions.renewed(mine, progress, **timing, beat=beat),
            lambda found: found.lease is not None and found.lease.beat == beat,
            "heartbeat",
        )

    def finish(self, request: Request, result_ids: Sequence[str]) -> Request:
        """End a request with its results, which are published before.

        Raises:
            LeaseLostError: another worker may have it; its results count.
        """
        now_s = self._clock()
        return self._end(request, lambda mine: transitions.finished(mine, result_ids, now_s=now_s), "finish")

    def fail(self, request: Request, reason: str, *, retry: bool) -> Request:
        """End an attempt that went wrong, for `reason`; with `retry` it waits again while attempts are left.

        Raises:
            LeaseLostError: another worker may have it.
        """
        now_s = self._clock()

        def step(mine: Request) -> Request:
            attempts_left = retry and mine.attempts < self.max_attempts
            return transitions.failed(mine, reason, now_s=now_s, attempts_left=attempts_left)

        return self._end(request, step, "fail")

    def release(self, request: Request) -> Request:
        """Give a request back because this worker leaves; the attempt does not count.

        Raises:
            LeaseLostError: there was nothing left to give back.
        """
        now_s = self._clock()
        return self._end(request, lambda mine: transitions.released(mine, now_s=now_s), "release")

    def cancel(self, request_id: str) -> Request:
        """End a request that waits or runs; its worker hears LeaseLostError at its next heartbeat.

        Raises:
            NotFoundError: there is none of this id.
            RequestStateError: it is over already.
        """
        return self._cancel(request_id, transitions.cancelled)

    def withdraw(self, request_id: str) -> Request:
        """End a request that nobody runs yet.

        Raises:
            NotFoundError: there is none of this id.
            RequestStateError: a worker has it, or it is over already.
        """
        return self._cancel(request_id, transitions.withdrawn)

    def _cancel(self, request_id: str, ending: Callable[..., Request]) -> Request:
        now_s = self._clock()

        def step(old: Request | None) -> Request:
            if old is None:
                raise NotFoundError(f"there is no request {request_id} in this queue")
            return ending(old, now_s=now_s)

        return self._update(request_id, step, lambda found: found.state is State.CANCELLED, "cancel")

    def _reaped(self, request: Request, now_s: float) -> Request:
        return transitions.expired(request, now_s=now_s, max_attempts=self.max_attempts)

    def _end(self, request: Request, step: Callable[[Request], Request], verb: str) -> Request:
        written: list[Request] = []

        def ended(mine: Request) -> Request:
            written[:] = [step(mine)]
            return written[0]

        def has_ended(found: Request) -> bool:
            """The very ending that was written: one of this lease may be somebody else's verdict on it."""
            (ours,) = written
            same_results = ours.state is not State.FINISHED or found.result_ids == ours.result_ids
            return same_results and ours.history[-1] in found.history

        return self._held(request, ended, has_ended, verb)

    def _held(
        self, request: Request, step: Callable[[Request], Request], landed: Callable[[Request], bool], verb: str
    ) -> Request:
        """Change a request that this holder still holds."""
        lease_id = request.lease.id if request.lease else None

        def fenced(old: Request | None) -> Request:
            if old is None or old.lease is None or old.lease.id != lease_id:
                now = "gone" if old is None else f"{old.state} now"
                raise LeaseLostError(f"cannot {verb} request {request.id}: its lease is over, it is {now}")
            return step(old)

        try:
            return self._update(request.id, fenced, landed, verb)
        except RecordError as error:
            raise LeaseLostError(f"cannot {verb} request {request.id}: {error}") from error

    def _update(self, request_id: str, step: Step, landed: Callable[[Request], bool], verb: str) -> Request:
        """Change one request; a step that returns its argument leaves the store alone."""
        latest: list[Request] = []

        def plan(rev: str) -> Change | None:
            old = self._shelf.find(request_id, rev)
            new = step(old)
            latest[:] = [new]
            return None if new is old else _change([(old, new)], f"{verb} {request_id}")

        def has_landed(rev: str) -> bool:
            found = self._shelf.find(request_id, rev)
            if found is None or not landed(found):
                return False
            latest[:] = [found]
            return True

        self._transact(plan, has_landed)
        return latest[0]

    def _transact(self, plan: Callable[[str], Change | None], landed: Callable[[str], bool]) -> None:
        transact(self._store, plan, landed, sleep=self._sleep, rng=self._rng)

    def _nonce(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"


def _is_over(request: Request, now_s: float) -> bool:
    return request.lease is not None and request.lease.expires_at <= now_s


def _change(moves: Sequence[tuple[Request | None, Request]], message: str) -> Change | None:
    """Return the commit that turns each old record into its new one; None if there is nothing to turn."""
    if not moves:
        return None
    puts = {new.path: request_bytes(new) for _, new in moves}
    return Change(puts, [old.path for old, new in moves if old is not None and old.path != new.path], message)


def _claim_message(worker: str, moves: Mapping[str, object], taken: Sequence[Request]) -> str:
    ids = {request.id for request in taken}
    expired = [f"{request_id} expired" for request_id in moves if request_id not in ids]
    return "; ".join([*(f"{worker} claims {request_id}" for request_id in ids), *expired])
