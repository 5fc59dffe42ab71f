"""Whatever submitters, workers, people and the clock do, these things stay true."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from moe_cap.errors import DuplicateSubmissionError, LeaseLostError, RequestStateError
from moe_cap.queue import Outcome, Progress, Queue, Request, State
from moe_cap.queue.record import parse_request, request_bytes
from moe_cap.store import MemoryStore

LEASE_S = 10.0
MAX_ATTEMPTS = 3
NAMES = st.sampled_from(["id-a", "id-b", "id-c"])
FINAL = {State.FINISHED, State.FAILED, State.CANCELLED}


class QueueMachine(RuleBasedStateMachine):
    """Workers keep every request that they ever held, and go on using them: most of them are zombies."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.store = MemoryStore()
        self.queue = Queue(
            self.store, lease_s=LEASE_S, max_attempts=MAX_ATTEMPTS, clock=lambda: self.now_s, sleep=lambda _: None
        )
        self.held: list[Request] = []
        self.claims: list[str] = []
        self.finished: dict[str, Request] = {}

    @rule(name=NAMES)
    def submit(self, name: str) -> None:
        before = {request.id: request.state for request in self.queue.requests()}
        try:
            self.queue.submit({"name": name}, request_id=name)
            assert before.get(name) in {None, State.FAILED, State.CANCELLED}
        except DuplicateSubmissionError as duplicate:
            assert before[name] == duplicate.state

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        waiting = {r.id for r in self.queue.requests(State.PENDING)}
        orphans = {r.id for r in self.queue.requests(State.RUNNING) if r.lease.expires_at <= self.now_s}
        mine = self.queue.claim(worker)
        assert (mine is not None) or not waiting
        if mine is not None:
            assert mine.id in waiting | orphans
            assert mine.lease.expires_at == self.now_s + LEASE_S
            self.held.append(mine)
            self.claims.append(mine.lease.id)
        assert all(r.lease.expires_at > self.now_s for r in self.queue.requests(State.RUNNING))

    @rule(pick=st.randoms(use_true_random=False), act=st.sampled_from(["beat", "finish", "fail", "retry", "release"]))
    def use_a_lease(self, pick: object, act: str) -> None:
        if not self.held:
            return
        mine = pick.choice(self.held)  # type: ignore[attr-defined]
        now = self.queue.get(mine.id)
        is_mine = now.lease is not None and now.lease.id == mine.lease.id
        acts = {
            "beat": lambda: self.queue.heartbeat(mine, Progress("timing")),
            "finish": lambda: self.queue.finish(mine, [mine.lease.id]),
            "fail": lambda: self.queue.fail(mine, "no", retry=False),
            "retry": lambda: self.queue.fail(mine, "again", retry=True),
            "release": lambda: self.queue.release(mine),
        }
        try:
            acts[act]()
            assert is_mine
        except LeaseLostError:
            assert not is_mine
            assert self.queue.get(mine.id) == now

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        known = {request.id: request for request in self.queue.requests()}
        if name not in known:
            return
        try:
            self.queue.cancel(name)
            assert known[name].state in {State.PENDING, State.RUNNING, State.CANCELLED}
        except RequestStateError:
            assert known[name].state in {State.FINISHED, State.FAILED}

    @rule(seconds=st.sampled_from([1.0, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def every_record_is_whole_and_lies_once(self) -> None:
        rev = self.store.head()
        paths = list(self.store.list("", rev))
        names = [path.rpartition("/")[2] for path in paths]
        assert len(names) == len(set(names))
        assert self.queue.problems() == []
        for path in paths:
            data = self.store.read(path, rev)
            assert request_bytes(parse_request(data, path)) == data

    @invariant()
    def every_lease_is_running_or_ended_once(self) -> None:
        requests = self.queue.requests()
        running = [r.lease.id for r in requests if r.lease]
        ended = [attempt.lease_id for r in requests for attempt in r.history]
        assert sorted(running + ended) == sorted(self.claims)

    @invariant()
    def fields_fit_the_state(self) -> None:
        for r in self.queue.requests():
            assert (r.lease is not None) == (r.state is State.RUNNING)
            assert (r.ended_at is not None) == (r.state in FINAL)
            assert (r.reason is not None) == (r.state is State.FAILED)
            assert bool(r.result_ids) == (r.state is State.FINISHED)
            assert 0 <= r.attempts <= MAX_ATTEMPTS
            assert [a.outcome for a in r.history].count(Outcome.FINISHED) == int(r.state is State.FINISHED)

    @invariant()
    def finished_stays_finished(self) -> None:
        now = {r.id: r for r in self.queue.requests(State.FINISHED)}
        for name, request in self.finished.items():
            assert now[name] == request
        self.finished = now


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
