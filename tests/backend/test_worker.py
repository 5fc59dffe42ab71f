"""What the worker does with a request in every case, step by step on a clock that stands still."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from backend.worker import REFUSED, result_id_of
from moe_cap.errors import BusyError, StoreAccessError
from moe_cap.queue import State
from moe_cap.result import Result, parse_result
from tests.backend.conftest import Bench, is_alive, read_pid, wait_for, watch_to_the_end
from tests.backend.fake_evaluation import publishable


def test_good_request_ends_with_its_result_published_and_the_snapshot_refreshed(bench: Bench) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    watch_to_the_end(worker)
    request = bench.queue.get(request_id)
    assert request.state is State.FINISHED
    assert list(request.result_ids) == list(bench.results.published)
    assert bench.refreshed == [1]


def test_idle_worker_takes_nothing_and_does_nothing(bench: Bench) -> None:
    worker = bench.worker()
    for look in (worker.poll, worker.watch, worker.heartbeat, worker.leave):
        look()
    assert not worker.busy
    assert worker.last is None


def test_worker_holds_one_request_at_a_time(bench: Bench) -> None:
    bench.submit("polite")
    bench.submit("ok")
    worker = bench.worker()
    worker.poll()
    worker.poll()
    assert len(bench.queue.requests(State.RUNNING)) == 1


def test_heartbeat_shows_stage_progress_and_log_and_lengthens_the_lease(bench: Bench) -> None:
    request_id, worker = bench.submit("polite"), bench.worker()
    worker.poll()
    bench.clock.now_s += 10

    def shown() -> object:
        worker.heartbeat()
        lease = bench.queue.get(request_id).lease
        return lease if lease and lease.progress and lease.progress.stage == "timing" else None

    lease = wait_for(shown)
    assert lease.expires_at == bench.clock.now_s + 30
    assert (lease.progress.fraction, lease.progress.eta_s, lease.progress.log_tail) == (0.25, 12.0, ("loaded",))


def test_crash_is_tried_again_until_the_attempts_are_used_up(bench: Bench) -> None:
    request_id, worker = bench.submit("crash"), bench.worker()
    for left in (State.PENDING, State.PENDING, State.FAILED):
        worker.poll()
        watch_to_the_end(worker)
        assert bench.queue.get(request_id).state is left
    assert bench.starts() == 3
    assert "engine: assertion failed in kernel 7" in str(bench.queue.get(request_id).reason)


def test_crash_that_does_not_come_back_ends_well(bench: Bench) -> None:
    request_id, worker = bench.submit("flaky"), bench.worker()
    for _ in range(2):
        worker.poll()
        watch_to_the_end(worker)
    assert bench.queue.get(request_id).state is State.FINISHED
    assert bench.starts() == 2


@pytest.mark.parametrize(
    ("kind", "reason"), [("refused", "has no reader"), ("memory", "not enough"), ("other", "not of this run")]
)
def test_what_would_end_the_same_way_again_is_not_tried_again(bench: Bench, kind: str, reason: str) -> None:
    request_id, worker = bench.submit(kind), bench.worker()
    worker.poll()
    watch_to_the_end(worker)
    request = bench.queue.get(request_id)
    assert request.state is State.FAILED
    assert reason in str(request.reason)
    assert not bench.results.published


def test_evaluation_over_its_limit_is_stopped_with_a_reason(bench: Bench) -> None:
    bench.run_limit_s = 25.0
    request_id, worker = bench.submit("hang"), bench.worker()
    worker.poll()
    server = read_pid(bench.folder(request_id) / "server.pid")
    worker.watch()
    assert worker.busy
    bench.clock.now_s += 26
    worker.watch()
    request = bench.queue.get(request_id)
    assert request.state is State.FAILED
    assert request.reason == "stopped after 25 s, the limit of this worker, in stage 'timing'; ask for less load"
    assert not is_alive(server)


def test_lost_lease_stops_the_evaluation_and_publishes_nothing(bench: Bench) -> None:
    request_id, slow, other = bench.submit("hangs-once"), bench.worker(), bench.worker()
    slow.poll()
    server = read_pid(bench.folder(request_id) / "server.pid")
    bench.clock.now_s += 31
    other.poll()
    slow.heartbeat()
    assert not slow.busy
    assert not is_alive(server)
    watch_to_the_end(other)
    assert bench.queue.get(request_id).state is State.FINISHED
    assert len(bench.results.published) == 1


def test_worker_that_lost_its_lease_unnoticed_does_not_publish(bench: Bench) -> None:
    request_id, slow = bench.submit("ok"), bench.worker()
    other = bench.worker(runs=bench.root / "another-machine")
    slow.poll()
    bench.clock.now_s += 31
    other.poll()
    watch_to_the_end(slow)  # never sent a heartbeat: the fence before publishing stops it
    assert not bench.results.published
    watch_to_the_end(other)
    assert list(bench.queue.get(request_id).result_ids) == list(bench.results.published)


def test_cancelled_request_is_stopped_at_the_next_heartbeat(bench: Bench) -> None:
    request_id, worker = bench.submit("hang"), bench.worker()
    worker.poll()
    server = read_pid(bench.folder(request_id) / "server.pid")
    bench.queue.cancel(request_id)
    worker.heartbeat()
    assert not worker.busy
    assert not is_alive(server)


def test_result_of_a_worker_that_died_after_publishing_is_adopted(bench: Bench) -> None:
    request_id = bench.submit("ok")
    request = bench.queue.claim("dies")
    assert request is not None
    assert request.lease is not None
    run_uuid = str(uuid.UUID(hex=request.lease.id))
    bench.results.publish(parse_result(json.dumps(publishable(dict(request.submission), run_uuid))))
    bench.clock.now_s += 31
    bench.worker().poll()
    assert bench.queue.get(request_id).state is State.FINISHED
    assert list(bench.queue.get(request_id).result_ids) == list(bench.results.published)
    assert bench.starts() == 0


def test_result_of_somebody_elses_run_is_not_adopted(bench: Bench) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    body = dict(bench.queue.get(request_id).submission)
    bench.results.publish(parse_result(json.dumps(publishable(body, "00000000-0000-0000-0000-000000000000"))))
    worker.poll()
    watch_to_the_end(worker)
    assert bench.starts() == 1
    assert len(bench.results.published) == 2


def test_leaving_worker_gives_its_request_back_without_using_up_an_attempt(bench: Bench) -> None:
    request_id, worker = bench.submit("hang"), bench.worker()
    worker.poll()
    server = read_pid(bench.folder(request_id) / "server.pid")
    worker.leave()
    request = bench.queue.get(request_id)
    assert (request.state, request.attempts) == (State.PENDING, 0)
    assert not is_alive(server)


@contextmanager
def store_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def away(puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        raise BusyError("away", wait_s=0.0)

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "commit", away)
        patch.setattr(bench.queue, "_sleep", lambda _s: None)
        yield


def test_outcome_survives_a_store_that_is_away_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    with store_away(bench, monkeypatch):
        wait_for(lambda: worker.watch() or worker._current.outcome)
        worker.watch()
        worker.heartbeat()
        assert worker.busy
    bench.clock.now_s += 1
    worker.watch()
    assert bench.queue.get(request_id).state is State.FINISHED
    assert bench.starts() == 1


def test_worker_that_leaves_with_a_result_in_hand_publishes_it(bench: Bench) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    wait_for(lambda: worker._current.evaluation.outcome())
    worker.leave()
    request = bench.queue.get(request_id)
    assert request.state is State.FINISHED
    assert list(request.result_ids) == list(bench.results.published)


def test_result_that_a_leaving_worker_could_not_publish_is_published_by_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    wait_for(lambda: worker._current.evaluation.outcome())
    with store_away(bench, monkeypatch):
        worker.leave()
    assert not bench.results.published
    bench.clock.now_s += 31
    bench.worker().poll()
    request = bench.queue.get(request_id)
    assert request.state is State.FINISHED
    assert list(request.result_ids) == list(bench.results.published)
    assert bench.starts() == 1


def test_publishing_that_fails_is_tried_again_and_published_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    publish, calls = bench.results.publish, []

    def unsure(result: Result) -> str:
        calls.append(publish(result))
        raise BusyError("written, but the answer was lost", wait_s=0.0)

    monkeypatch.setattr(bench.results, "publish", unsure)
    wait_for(lambda: worker.watch() or calls)
    bench.clock.now_s += 1
    worker.watch()
    assert bench.queue.get(request_id).result_ids == (calls[0],)
    assert len(calls) == 1


def test_nothing_is_taken_while_results_cannot_be_published(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()

    def refused() -> None:
        raise StoreAccessError("this token may not write")

    with monkeypatch.context() as patch:
        patch.setattr(bench.results, "check_writable", refused)
        worker.poll()
    request = bench.queue.get(request_id)
    assert (request.state, request.history, bench.starts()) == (State.PENDING, (), 0)
    worker.poll()
    assert bench.queue.get(request_id).state is State.RUNNING


def test_results_that_are_refused_cost_the_queue_one_commit_a_heartbeat(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    commits, asked, commit = [], [], bench.store.commit

    def counted(puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        commits.append(message)
        return commit(puts, deletes, parent, message)

    def refused(result: Result) -> str:
        asked.append(result.id)
        raise StoreAccessError("this token may not write any more")

    monkeypatch.setattr(bench.store, "commit", counted)
    with monkeypatch.context() as patch:
        patch.setattr(bench.results, "publish", refused)
        wait_for(lambda: worker.watch() or asked)
        for _ in range(3):
            for look in (worker.watch, worker.heartbeat, worker.watch):
                look()
            bench.clock.now_s += bench.store.heartbeat_s
        worker.watch()
    assert len(asked) == 4
    assert commits == [f"heartbeat {request_id}"] * 4
    lease = bench.queue.get(request_id).lease
    assert lease is not None
    assert lease.progress == REFUSED
    bench.clock.now_s += bench.store.heartbeat_s
    worker.watch()
    assert bench.queue.get(request_id).state is State.FINISHED


def test_unreadable_submission_fails_with_the_field_that_is_wrong(bench: Bench) -> None:
    bench.queue.submit({"model": "a/b", "schema_version": 99}, request_id="from-the-future")
    bench.worker().poll()
    request = bench.queue.get("from-the-future")
    assert request.state is State.FAILED
    assert "schema_version" in str(request.reason)


def test_result_id_follows_from_submission_and_lease(bench: Bench) -> None:
    request_id, worker = bench.submit("ok"), bench.worker()
    worker.poll()
    watch_to_the_end(worker)
    (result,) = bench.results.published.values()
    (attempt,) = bench.queue.get(request_id).history
    assert result.submission is not None
    assert result.id == result_id_of(result.submission, attempt.lease_id)
