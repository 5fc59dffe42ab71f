"""The worker: takes one request at a time under a lease, has it evaluated, publishes what came out.

Each method is one short look at the world and returns; `backend.schedule` calls them in turn, one at a time. The order
at the end is what makes a crash harmless: renew the lease (fence), publish the result, then finish the request. A
worker that dies before publishing leaves a lease that runs out, and the request is evaluated again. One that dies after
it leaves a result under an id that the next claimant can work out, and adopts. One that ends with a result in hand and
no store to publish it in leaves it on its disk, for the next claimant on that machine.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.executors.base import Evaluation, Executor, Failed, Job, Outcome, Succeeded
from moe_cap.errors import LeaseLostError, MoECapError, StoreError, SubmissionError
from moe_cap.queue import Outcome as AttemptOutcome
from moe_cap.queue import Progress, Queue, Request, State
from moe_cap.result import Result, result_id
from moe_cap.submission import Submission, parse_submission

LOG = logging.getLogger(__name__)
PUBLISHING = Progress("publishing", 1.0)
REFUSED = Progress("publishing", 1.0, log_tail=("not published yet, tried again; the log of the worker says why",))


class Results(Protocol):
    """What the worker needs of `moe_cap.results.ResultStore`."""

    def check_writable(self) -> None:
        """Find out whether something could be published; raises as `Store.check_writable`."""

    def publish(self, result: Result) -> str:
        """Write once; the same result again is no error."""

    def has(self, result_id: str) -> bool:
        """Whether a result of this id was published."""


@dataclass(slots=True)
class Assignment:
    """The one request that is being evaluated."""

    request: Request
    submission: Submission
    evaluation: Evaluation
    ends_at_s: float
    outcome: Outcome | None = None
    settle_at_s: float | None = None
    """When its outcome is tried to be settled again; None unless a store has refused it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the last request left this worker."""

    request_id: str
    state: State | None
    """What it is now; None when another worker decides that."""
    result_ids: tuple[str, ...] = ()
    reason: str | None = None


def result_id_of(submission: Submission, lease_id: str) -> str:
    """The id of the result that the holder of a lease publishes: whoever sees the request's history can work it out."""
    return result_id(submission.id, run_uuid_of(lease_id))


def run_uuid_of(lease_id: str) -> str:
    """A lease is one run, and gives it its name."""
    return str(uuid.UUID(hex=lease_id))


class Worker:
    """Holds at most one request at a time. Its methods must not be called at the same time.

    The constructor takes where requests come from, where results go and where evaluations run; `name`, which signs the
    leases; `accepts`, which says what this machine can serve; `runs`, a folder for one subfolder per run;
    `run_limit_s`, after which an evaluation is stopped; `retry_s`, from one try to settle an outcome to the next, the
    queue's pause between heartbeats because each try renews the lease; `monotonic`, a clock in seconds that never goes
    back; and `after_publishing`, which refreshes what is derived from the results (its failure is only logged).
    """

    def __init__(
        self,
        queue: Queue,
        results: Results,
        executor: Executor,
        *,
        name: str,
        accepts: Callable[[Request], bool],
        runs: Path,
        run_limit_s: float,
        retry_s: float,
        monotonic: Callable[[], float],
        after_publishing: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._results = results
        self._executor = executor
        self._name = name
        self._accepts = accepts
        self._runs = runs
        self._run_limit_s = run_limit_s
        self._retry_s = retry_s
        self._monotonic = monotonic
        self._after_publishing = after_publishing
        self._current: Assignment | None = None
        self.last: Ended | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is in hand."""
        return self._current is not None

    def poll(self) -> None:
        """Take the next request if there is one, none is in hand, and what came out could be published."""
        if self._current is not None:
            return
        try:
            self._results.check_writable()
        except StoreError as error:
            LOG.warning("no request is taken, results cannot be published now: %s", error)
            return
        try:
            request = self._queue.claim(self._name, accepts=self._accepts)
            if request is not None:
                self._take_up(request)
        except LeaseLostError as error:
            LOG.warning("lost before its evaluation began: %s", error)
        except StoreError as error:
            LOG.warning("the queue cannot be reached now: %s", error)

    def watch(self) -> None:
        """Settle the request in hand if its evaluation has ended or has run for too long."""
        current = self._current
        if current is None:
            return
        current.outcome = current.outcome or current.evaluation.outcome() or self._overdue(current)
        now_s = self._monotonic()
        if current.outcome is None or (current.settle_at_s is not None and now_s < current.settle_at_s):
            return
        try:
            self._settle(current, current.outcome)
        except LeaseLostError as error:
            self._abandon(current, error)
        except StoreError as error:  # the outcome is kept for the next try
            LOG.warning("request %s cannot be settled now: %s", current.request.id, error)
            current.settle_at_s = now_s + self._retry_s
        else:
            self._current = None

    def heartbeat(self) -> None:
        """Renew the lease of the request in hand and show how far it is; what is being settled renews its own."""
        current = self._current
        if current is None or current.outcome is not None:
            return
        try:
            self._queue.heartbeat(current.request, current.evaluation.progress())
        except LeaseLostError as error:
            self._abandon(current, error)
        except StoreError as error:  # not renewed, not lost either: the fence before publishing decides
            LOG.warning("the lease of %s was not renewed: %s", current.request.id, error)

    def leave(self) -> None:
        """End the request in hand if its outcome is known, else stop its evaluation and give the request back.

        The attempt of a request that is given back does not count, and a result that could not be published stays in
        its folder, where the next worker of this machine finds it.
        """
        current = self._current
        if current is None:
            return
        outcome = self._outcome_at_the_end(current)
        self._current = None
        try:
            if outcome is not None:
                self._settle(current, outcome)
                return
        except (StoreError, LeaseLostError) as error:
            LOG.warning("request %s cannot be settled now: %s", current.request.id, error)
        try:
            self._queue.release(current.request)
        except (StoreError, LeaseLostError) as error:
            LOG.warning("request %s was not given back, its lease will run out: %s", current.request.id, error)
        else:
            LOG.info("request %s given back", current.request.id)

    def _outcome_at_the_end(self, current: Assignment) -> Outcome | None:
        """How the evaluation ended by itself; being stopped is no outcome, unless it came to its end meanwhile."""
        known = current.outcome or current.evaluation.outcome()
        current.evaluation.stop()
        stopped = current.evaluation.outcome()
        return known or (stopped if isinstance(stopped, Succeeded) else None)

    def _take_up(self, request: Request) -> None:
        try:
            submission = parse_submission(request.submission)
        except SubmissionError as error:
            self._failed(request, Failed(f"the submission cannot be read: {error}", retry=False))
            return
        try:
            adopted = self._published(request, submission) or self._publish_left(request, submission)
        except StoreError:
            self._queue.release(request)
            raise
        if adopted is not None:
            self._finished(request, adopted)
            return
        self._start(request, submission)

    def _start(self, request: Request, submission: Submission) -> None:
        job = self._job(request, submission, _lease_id(request))
        try:
            evaluation = self._executor.start(job)
        except OSError as error:
            self._failed(request, Failed(f"the worker could not start the evaluation: {error}", retry=True))
            return
        self._current = Assignment(request, submission, evaluation, self._monotonic() + self._run_limit_s)
        LOG.info("request %s taken, attempt %d, %s", request.id, request.attempts, job.folder)

    def _published(self, request: Request, submission: Submission) -> str | None:
        """The id of the result that this run or an earlier one of the request published."""
        leases = [attempt.lease_id for attempt in request.history] + [_lease_id(request)]
        ids = (result_id_of(submission, lease_id) for lease_id in leases)
        return next((found for found in ids if self._results.has(found)), None)

    def _publish_left(self, request: Request, submission: Submission) -> str | None:
        """Publish what an earlier run on this machine measured to its end while the store was away."""
        for attempt in request.history:
            if attempt.outcome in {AttemptOutcome.RELEASED, AttemptOutcome.EXPIRED}:
                left = self._executor.left(self._job(request, submission, attempt.lease_id))
                if left is not None and left.id == result_id_of(submission, attempt.lease_id):
                    return self._results.publish(left)
        return None

    def _job(self, request: Request, submission: Submission, lease_id: str) -> Job:
        return Job(submission, run_uuid_of(lease_id), self._runs / f"{request.id}-{lease_id[:8]}")

    def _overdue(self, current: Assignment) -> Outcome | None:
        if self._monotonic() < current.ends_at_s:
            return None
        stage = current.evaluation.progress().stage
        current.evaluation.stop()
        # it may have come to its end while it was being stopped
        ended = current.evaluation.outcome()
        if isinstance(ended, Succeeded):
            return ended
        limit = f"{self._run_limit_s:.0f} s" if self._run_limit_s < 120 else f"{self._run_limit_s / 60:.0f} minutes"
        reason = f"stopped after {limit}, the limit of this worker, in stage '{stage}'; ask for less load"
        return Failed(reason, retry=False)

    def _settle(self, current: Assignment, outcome: Outcome) -> None:
        request = current.request
        if isinstance(outcome, Succeeded):
            outcome = _refuse_foreign(current, outcome)
        if isinstance(outcome, Failed):
            self._failed(request, outcome)
            return
        # the fence: who lost the lease stops here
        self._queue.heartbeat(request, PUBLISHING if current.settle_at_s is None else REFUSED)
        published = self._published(request, current.submission) or self._results.publish(outcome.result)
        self._finished(request, published)

    def _failed(self, request: Request, outcome: Failed) -> None:
        after = self._queue.fail(request, outcome.reason, retry=outcome.retry)
        self.last = Ended(request.id, after.state, reason=outcome.reason)
        LOG.info("request %s is %s: %s", request.id, after.state, outcome.reason)

    def _finished(self, request: Request, published: str) -> None:
        self._queue.finish(request, [published])
        self.last = Ended(request.id, State.FINISHED, (published,))
        LOG.info("request %s is finished: result %s", request.id, published)
        self._refresh()

    def _refresh(self) -> None:
        try:
            self._after_publishing()
        except MoECapError as error:  # the request is finished; the next result refreshes it
            LOG.warning("the snapshot of all results was not refreshed: %s", error)

    def _abandon(self, current: Assignment, error: LeaseLostError) -> None:
        LOG.warning("nothing is published: %s", error)
        current.evaluation.stop()
        self._current = None
        self.last = Ended(current.request.id, None, reason=str(error))


def _lease_id(request: Request) -> str:
    if request.lease is None:
        raise LeaseLostError(f"request {request.id} came without a lease")
    return request.lease.id


def _refuse_foreign(current: Assignment, outcome: Succeeded) -> Outcome:
    expected = result_id_of(current.submission, _lease_id(current.request))
    if outcome.result.id == expected:
        return outcome
    reason = f"the evaluation wrote result {outcome.result.id}, which is not of this run ({expected})"
    return Failed(reason, retry=False)
