"""What the queue promises on every store; see test_contract.py."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from moe_cap.errors import (
    DuplicateSubmissionError,
    InvalidInputError,
    LeaseLostError,
    NotFoundError,
    RecordError,
    RequestStateError,
)
from moe_cap.queue import Outcome, Progress, Queue, Request, State
from moe_cap.store import Store
from tests.store.faulty import FaultyStore

Open = Callable[[], Store]
LEASE_S = 60.0


class Clock:
    """Seconds since 1970, set by hand."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def short_sleep(seconds: float) -> None:
    """Long enough for the pauses of rivals to drift apart, too short for a rate limit."""
    time.sleep(min(seconds, 0.4))


def queue_on(store: Store, clock: Callable[[], float], **more: Any) -> Queue:
    return Queue(store, lease_s=LEASE_S, clock=clock, sleep=short_sleep, **more)


def submit(queue: Queue, *names: str) -> list[Request]:
    return [queue.submit({"model": name}, request_id=f"id-{name}") for name in names]


def in_threads(work: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class QueueContract:
    """`open_again()` opens the same empty store once more, as another process would."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def queue(self, open_again: Open, clock: Clock) -> Queue:
        return queue_on(open_again(), clock)

    @pytest.fixture
    def other(self, open_again: Open, clock: Clock) -> Queue:
        return queue_on(open_again(), clock)

    def test_submitted_request_waits(self, queue: Queue, other: Queue, clock: Clock) -> None:
        request = queue.submit({"model": "x", "levels": [1, 2]}, request_id="abcd")
        assert request.state is State.PENDING
        assert request.submission == {"model": "x", "levels": [1, 2]}
        assert request.submitted_at == clock.now_s
        assert other.get("abcd") == request
        assert other.requests() == [request]

    def test_oldest_is_first_and_knows_its_position(self, queue: Queue, clock: Clock) -> None:
        for name in ("zzz", "yyy", "xxx"):
            submit(queue, name)
            clock.now_s += 1
        assert [queue.position(f"id-{name}") for name in ("zzz", "yyy", "xxx")] == [1, 2, 3]
        assert [queue.claim("w").id for _ in range(3)] == ["id-zzz", "id-yyy", "id-xxx"]
        assert queue.claim("w") is None
        assert queue.position("id-zzz") is None

    def test_claimed_request_shows_who_has_it_until_when(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        mine = queue.claim("worker-1")
        assert mine is not None
        assert (mine.state, mine.attempts, mine.lease.worker) == (State.RUNNING, 1, "worker-1")
        assert mine.lease.expires_at == clock.now_s + LEASE_S
        assert other.get("id-a") == mine
        assert other.claim("worker-2") is None

    def test_worker_takes_what_it_accepts(self, queue: Queue) -> None:
        submit(queue, "a", "b")
        mine = queue.claim("w", accepts=lambda request: request.submission["model"] == "b")
        assert mine.id == "id-b"
        assert queue.claim("w", accepts=lambda _: False) is None

    def test_heartbeat_lengthens_the_lease_and_shows_progress(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        mine = queue.claim("w")
        clock.now_s += 40
        progress = Progress("timing", 0.5, 12.0, ("line 1", "line 2"))
        renewed = queue.heartbeat(mine, progress)
        clock.now_s += 40
        assert other.claim("other") is None
        seen = other.get("id-a")
        assert seen == renewed
        assert seen.lease.progress == progress
        assert seen.lease.id == mine.lease.id
        assert seen.lease.beat != mine.lease.beat

    def test_finished_request_names_its_results(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        mine = queue.claim("w")
        clock.now_s += 5
        queue.finish(mine, ["r1", "r2"])
        seen = other.get("id-a")
        assert (seen.state, seen.result_ids, seen.lease) == (State.FINISHED, ("r1", "r2"), None)
        assert seen.ended_at == clock.now_s
        (attempt,) = seen.history
        assert (attempt.worker, attempt.claimed_at, attempt.outcome) == ("w", clock.now_s - 5, Outcome.FINISHED)
        with pytest.raises(LeaseLostError):
            queue.finish(mine, ["again"])

    def test_failure_without_retry_is_final_and_says_why(self, queue: Queue) -> None:
        submit(queue, "a")
        queue.fail(queue.claim("w"), "out of memory: the weights need 90 GB", retry=False)
        seen = queue.get("id-a")
        assert (seen.state, seen.reason) == (State.FAILED, "out of memory: the weights need 90 GB")
        assert queue.claim("w") is None

    def test_failure_with_retry_waits_again_until_attempts_are_used_up(self, queue: Queue) -> None:
        submit(queue, "a")
        for number in (1, 2, 3):
            mine = queue.claim("w")
            assert mine.attempts == number
            queue.fail(mine, f"crash {number}", retry=True)
        seen = queue.get("id-a")
        assert (seen.state, seen.reason) == (State.FAILED, "crash 3")
        assert [attempt.reason for attempt in seen.history] == ["crash 1", "crash 2", "crash 3"]

    def test_released_request_does_not_lose_an_attempt(self, queue: Queue, other: Queue) -> None:
        submit(queue, "a")
        queue.release(queue.claim("w"))
        again = other.claim("other")
        assert again.attempts == 1
        assert [attempt.outcome for attempt in again.history] == [Outcome.RELEASED]

    def test_expired_lease_can_be_claimed(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        queue.claim("dead")
        clock.now_s += LEASE_S
        taken = other.claim("alive")
        assert (taken.id, taken.attempts, taken.lease.worker) == ("id-a", 2, "alive")
        assert [(attempt.worker, attempt.outcome) for attempt in taken.history] == [("dead", Outcome.EXPIRED)]

    def test_expired_request_goes_back_even_if_this_worker_cannot_take_it(self, queue: Queue, clock: Clock) -> None:
        submit(queue, "a")
        queue.claim("dead")
        clock.now_s += LEASE_S
        assert queue.claim("picky", accepts=lambda _: False) is None
        assert queue.get("id-a").state is State.PENDING

    def test_zombie_can_change_nothing(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        lost = queue.claim("zombie")
        clock.now_s += LEASE_S
        mine = other.claim("alive")
        for act in (
            lambda: queue.heartbeat(lost, None),
            lambda: queue.finish(lost, ["wrong"]),
            lambda: queue.fail(lost, "wrong", retry=True),
            lambda: queue.release(lost),
        ):
            with pytest.raises(LeaseLostError):
                act()
        assert queue.get("id-a") == mine
        other.finish(mine, ["right"])
        with pytest.raises(LeaseLostError):
            queue.finish(lost, ["wrong"])
        assert queue.get("id-a").result_ids == ("right",)

    def test_late_holder_that_nobody_replaced_may_go_on(self, queue: Queue, clock: Clock) -> None:
        submit(queue, "a")
        mine = queue.claim("slow")
        clock.now_s += 10 * LEASE_S
        queue.heartbeat(mine, None)
        assert queue.finish(mine, ["r"]).state is State.FINISHED

    def test_three_expired_leases_fail_the_request(self, queue: Queue, clock: Clock) -> None:
        submit(queue, "a", "b")
        for _ in range(3):
            assert queue.claim("w", accepts=lambda request: request.id == "id-a").id == "id-a"
            clock.now_s += LEASE_S
        assert queue.claim("w").id == "id-b"
        seen = queue.get("id-a")
        assert (seen.state, seen.attempts) == (State.FAILED, 3)
        assert "Given up after 3 attempts" in seen.reason
        assert [attempt.outcome for attempt in seen.history] == [Outcome.EXPIRED] * 3

    def test_same_submission_is_told_so(self, queue: Queue, other: Queue) -> None:
        submit(queue, "a")
        for act, state in (
            (lambda: None, "pending"),
            (lambda: queue.claim("w"), "running"),
            (lambda: queue.finish(queue.get("id-a"), ["r"]), "finished"),
        ):
            act()
            with pytest.raises(DuplicateSubmissionError) as duplicate:
                submit(other, "a")
            assert (duplicate.value.request_id, duplicate.value.state) == ("id-a", state)
        assert len(queue.requests()) == 1

    def test_failed_request_may_be_submitted_again(self, queue: Queue, clock: Clock) -> None:
        submit(queue, "a")
        queue.fail(queue.claim("w"), "no", retry=False)
        clock.now_s += 100
        (again,) = submit(queue, "a")
        assert (again.state, again.attempts, again.reason) == (State.PENDING, 0, None)
        assert (again.submitted_at, again.ended_at) == (clock.now_s, None)
        assert [attempt.outcome for attempt in again.history] == [Outcome.FAILED]
        assert queue.claim("w").attempts == 1
        assert len(queue.requests()) == 1

    def test_waiting_request_can_be_cancelled_and_submitted_again(self, queue: Queue) -> None:
        submit(queue, "a")
        assert queue.cancel("id-a").state is State.CANCELLED
        assert queue.cancel("id-a").state is State.CANCELLED
        assert queue.claim("w") is None
        assert submit(queue, "a")[0].state is State.PENDING

    def test_cancelling_a_running_request_stops_its_worker(self, queue: Queue, other: Queue) -> None:
        submit(queue, "a")
        mine = queue.claim("w")
        cancelled = other.cancel("id-a")
        assert [attempt.outcome for attempt in cancelled.history] == [Outcome.CANCELLED]
        with pytest.raises(LeaseLostError, match="cancelled"):
            queue.heartbeat(mine, None)

    def test_only_a_waiting_request_can_be_withdrawn(self, queue: Queue, other: Queue) -> None:
        submit(queue, "a", "b")
        running = queue.claim("w")
        with pytest.raises(RequestStateError, match="--cancel") as refused:
            other.withdraw("id-a")
        assert refused.value.state == "running"
        assert queue.heartbeat(running, None).state is State.RUNNING
        assert other.withdraw("id-b").state is State.CANCELLED
        assert other.withdraw("id-b").state is State.CANCELLED
        queue.finish(running, ["r"])
        with pytest.raises(RequestStateError):
            other.withdraw("id-a")

    def test_what_is_over_cannot_be_cancelled(self, queue: Queue) -> None:
        submit(queue, "a")
        queue.finish(queue.claim("w"), ["r"])
        with pytest.raises(RequestStateError) as refused:
            queue.cancel("id-a")
        assert refused.value.state == "finished"

    def test_unknown_request_is_not_found(self, queue: Queue) -> None:
        assert queue.position("nothing") is None
        for act in (queue.get, queue.cancel, queue.withdraw):
            with pytest.raises(NotFoundError):
                act("nothing")

    @pytest.mark.parametrize("request_id", ["../../etc", "A/B", "", "x", "a" * 65, "UPPER", "a.json", "-abc"])
    def test_id_that_could_choose_a_path_is_refused(self, queue: Queue, request_id: str) -> None:
        with pytest.raises(InvalidInputError):
            queue.submit({}, request_id=request_id)

    @pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}])
    def test_body_that_is_not_json_is_refused(self, queue: Queue, body: dict[str, object]) -> None:
        with pytest.raises(InvalidInputError):
            queue.submit(body, request_id="abcd")
        assert queue.requests() == []

    def test_requests_are_listed_by_state(self, queue: Queue) -> None:
        submit(queue, "a", "b", "c")
        queue.finish(queue.claim("w"), [])
        queue.claim("w")
        assert [request.id for request in queue.requests(State.FINISHED)] == ["id-a"]
        assert [request.id for request in queue.requests(State.RUNNING)] == ["id-b"]
        assert [request.id for request in queue.requests()] == ["id-a", "id-b", "id-c"]

    def test_foreign_and_broken_files_are_named_and_left_out(self, open_again: Open, queue: Queue) -> None:
        submit(queue, "a")
        store = open_again()
        good = store.read("pending/id/id-a.json", store.head())
        files = {
            "README.md": b"not in a state folder, not the queue's business",
            "pending/notes.txt": b"?",
            "pending/br/broken-json.json": b"{",
            "pending/li/list-json.json": b"[]",
            "pending/ot/other-version.json": good.replace(b'"schema_version": 1', b'"schema_version": 2'),
            "pending/ex/extra-field.json": good.replace(b'"id": "id-a"', b'"id": "extra-field", "surprise": 1'),
            "pending/wr/wrong-name.json": good,
            "running/no/no-lease.json": good.replace(b"id-a", b"no-lease"),
            "finished/id/id-a.json": good,
        }
        store.commit(files, [], store.head(), "by hand")
        assert {problem.path for problem in queue.problems()} == files.keys() - {
            "README.md",
            "finished/id/id-a.json",
        } | {"pending/id/id-a.json"}
        assert [(request.id, request.state) for request in queue.requests()] == [("id-a", State.FINISHED)]
        assert queue.claim("w") is None
        with pytest.raises(RecordError, match="not the JSON"):
            queue.get("broken-json")
        with pytest.raises(RecordError):
            queue.submit({}, request_id="list-json")

    def test_record_moved_by_hand_has_the_state_of_its_folder(self, open_again: Open, queue: Queue) -> None:
        submit(queue, "a")
        mine, store = queue.claim("w"), open_again()
        rev = store.head()
        store.commit({"pending/id/id-a.json": store.read(mine.path, rev)}, [mine.path], rev, "by hand")
        assert queue.get("id-a").state is State.PENDING
        with pytest.raises(LeaseLostError):
            queue.heartbeat(mine, None)
        assert queue.claim("w").attempts == 2

    def test_failed_request_moved_to_pending_by_hand_is_evaluated_again(self, open_again: Open, queue: Queue) -> None:
        submit(queue, "a")
        failed = queue.fail(queue.claim("w"), "no", retry=False)
        store = open_again()
        rev = store.head()
        store.commit({"pending/id/id-a.json": store.read(failed.path, rev)}, [failed.path], rev, "by hand")
        mine = queue.claim("w")
        assert (mine.reason, mine.ended_at, mine.attempts) == (None, None, 2)
        assert queue.finish(mine, ["r"]).reason is None

    def test_holder_of_a_record_that_somebody_broke_has_lost_it(self, open_again: Open, queue: Queue) -> None:
        submit(queue, "a")
        mine, store = queue.claim("w"), open_again()
        store.commit({mine.path: b"{"}, [], store.head(), "by hand")
        with pytest.raises(LeaseLostError):
            queue.heartbeat(mine, None)

    def test_clock_that_jumps_ahead_costs_time_but_never_publishes_twice(self, open_again: Open, clock: Clock) -> None:
        ahead = Clock()
        ahead.now_s = clock.now_s + 10 * LEASE_S
        right, wrong = queue_on(open_again(), clock), queue_on(open_again(), ahead)
        submit(right, "a")
        first, second = right.claim("right"), wrong.claim("ahead")
        with pytest.raises(LeaseLostError):
            right.finish(first, ["one"])
        wrong.finish(second, ["two"])
        assert right.get("id-a").result_ids == ("two",)

    def test_clock_that_jumps_back_keeps_the_lease(self, queue: Queue, other: Queue, clock: Clock) -> None:
        submit(queue, "a")
        mine = queue.claim("w")
        clock.now_s -= 1000
        assert other.claim("other") is None
        renewed = queue.heartbeat(mine, None)
        assert renewed.lease.expires_at == clock.now_s + LEASE_S
        clock.now_s += LEASE_S
        assert other.claim("other").id == "id-a"

    def test_race_of_eight_workers_for_one_request_has_one_winner(self, open_again: Open, clock: Clock) -> None:
        stores = [open_again() for _ in range(8)]
        submit(queue_on(stores[0], clock), "a")
        won: list[Request | None] = []
        in_threads([lambda store=store: won.append(queue_on(store, clock).claim("w")) for store in stores])
        assert len(won) == 8
        assert sum(request is not None for request in won) == 1

    def test_race_of_eight_submitters_makes_one_request(self, open_again: Open, clock: Clock) -> None:
        made: list[str] = []

        def try_submit(store: Store) -> None:
            try:
                submit(queue_on(store, clock), "a")
                made.append("made")
            except DuplicateSubmissionError:
                made.append("duplicate")

        stores = [open_again() for _ in range(8)]
        in_threads([lambda store=store: try_submit(store) for store in stores])
        assert Counter(made) == {"made": 1, "duplicate": 7}
        assert len(queue_on(stores[0], clock).requests()) == 1

    @pytest.mark.parametrize("seed", range(4))
    def test_lost_answers_and_refusals_execute_everything_once(self, open_again: Open, clock: Clock, seed: int) -> None:
        rng = Random(seed)
        faulty = FaultyStore(open_again(), rng)
        queue, names = queue_on(faulty, clock, rng=rng), ["aa", "bb", "cc"]
        submit(queue, *names)
        claims: list[str] = []
        while (mine := queue.claim("w")) is not None:
            claims.append(mine.id)
            queue.heartbeat(mine, Progress("timing"))
            queue.finish(mine, [f"result of {mine.id}"])
        assert claims == [f"id-{name}" for name in names]
        seen = queue_on(open_again(), clock).requests()
        assert [(request.state, request.attempts, len(request.history)) for request in seen] == [
            (State.FINISHED, 1, 1)
        ] * 3
        assert len(set(faulty.faults)) > 1

    def test_workers_in_a_crowd_execute_everything_once(self, open_again: Open, clock: Clock) -> None:
        names = [f"{number:02d}" for number in range(12)]
        submit(queue_on(open_again(), clock), *names)
        done: list[str] = []

        def work(store: Store) -> None:
            queue = queue_on(store, clock)
            while (mine := queue.claim("w")) is not None:
                queue.finish(queue.heartbeat(mine, None), [])
                done.append(mine.id)

        stores = [open_again() for _ in range(4)]
        in_threads([lambda store=store: work(store) for store in stores])
        assert Counter(done) == {f"id-{name}": 1 for name in names}
        assert {request.state for request in queue_on(open_again(), clock).requests()} == {State.FINISHED}
