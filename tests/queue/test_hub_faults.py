"""The whole queue over HTTP while the Hub misbehaves: refusals, lost answers, a lagging head, a held lock."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest

from moe_cap.queue import Progress, Queue, State
from moe_cap.store import HubStore
from tests.hub.app import Server

from .contract import Clock, in_threads, queue_on, submit

LOCKED = "Another commit operation is in progress for this repository. Please try again later."


def test_misbehaving_hub_executes_everything_once(hub: Server, hub_stores: Callable[[], HubStore]) -> None:
    clock, names = Clock(), [f"{number:02d}" for number in range(12)]
    submit(queue_on(hub_stores(), clock), *names)
    hub.faults.add("POST", "/commit/", 500, times=5, applied=True)
    hub.faults.add("POST", "/commit/", 502, times=3)
    hub.faults.add("POST", "/commit/", 409, times=6, message=LOCKED)
    hub.faults.add("POST", "/commit/", 429, times=3, headers={"Retry-After": "1"})
    hub.faults.stale_heads = 12
    done: list[str] = []

    def work(store: HubStore) -> None:
        queue = queue_on(store, clock)
        while (mine := queue.claim(threading.current_thread().name)) is not None:
            queue.finish(queue.heartbeat(mine, Progress("timing")), [mine.id])
            done.append(mine.id)

    in_threads([lambda store=store: work(store) for store in [hub_stores() for _ in range(4)]])
    assert Counter(done) == {f"id-{name}": 1 for name in names}
    seen = queue_on(hub_stores(), clock).requests()
    assert [(request.state, request.attempts) for request in seen] == [(State.FINISHED, 1)] * 12
    assert all(fault.times == 0 for fault in hub.faults.waiting), "every fault was met"
    assert hub.faults.stale_heads == 0


def test_lagging_head_does_not_look_like_a_lost_lease(hub: Server, hub_stores: Callable[[], HubStore]) -> None:
    queue = queue_on(hub_stores(), Clock())
    submit(queue, "aa", "bb")
    mine = queue.claim("w")
    hub.faults.stale_heads = 5
    for _ in range(3):
        mine = queue.heartbeat(mine, None)
    assert queue.finish(mine, ["r"]).state is State.FINISHED


def test_request_whose_reading_was_refused_once_is_there_at_the_next_look(
    hub: Server, hub_stores: Callable[[], HubStore], caplog: pytest.LogCaptureFixture
) -> None:
    submit(queue_on(hub_stores(), Clock()), "aa")
    queue = queue_on(hub_stores(), Clock())
    hub.faults.add("GET", "/resolve/", 403, times=3)
    assert [queue.requests() for _ in range(2)] == [[], []]
    assert [problem.path for problem in queue.problems()] == ["pending/id/id-aa.json"]
    (line,) = caplog.messages
    assert line.startswith("left out of the queue for now: pending/id/id-aa.json")
    assert [request.id for request in queue.requests()] == ["id-aa"]
    assert queue.claim("w") is not None


def test_requests_cost_few_calls(hub: Server, hub_stores: Callable[[], HubStore]) -> None:
    """A poll of an unchanged queue is one call; claim, heartbeat and finish are one commit each."""
    queue: Queue = queue_on(hub_stores(), Clock())
    submit(queue, "aa", "bb", "cc")
    queue.requests()
    hub.log.clear()
    queue.requests()
    assert [seen.method for seen in hub.log] == ["GET"]
    hub.log.clear()
    queue.finish(queue.heartbeat(queue.claim("w"), None), [])
    assert sum("/commit/" in seen.path for seen in hub.log) == 3
    assert len(hub.log) <= 18
