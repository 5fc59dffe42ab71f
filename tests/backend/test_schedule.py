"""The clockwork around the worker: who runs when, and what an unexpected error does."""

from __future__ import annotations

import threading
import time

import pytest

from backend.schedule import Job, Pace, run_until, serve_once
from tests.backend.conftest import Bench


def test_jobs_never_overlap_and_a_late_one_runs_once() -> None:
    stop, running, seen, ran = threading.Event(), threading.Lock(), [], []

    def slow() -> None:
        seen.append(running.acquire(blocking=False))
        time.sleep(0.15)
        running.release()
        ran.append("slow")

    def quick() -> None:
        seen.append(running.acquire(blocking=False))
        running.release()
        ran.append("quick")
        if len(ran) > 6:
            stop.set()

    run_until(stop, [Job(slow, 0.05), Job(quick, 0.05)])
    assert all(seen)
    assert {"slow", "quick"} <= set(ran)


def test_unexpected_error_stops_the_service_and_is_told() -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        run_until(threading.Event(), [Job(broken, 0.01)])


def test_request_is_given_back_when_the_worker_breaks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    request_id, worker = bench.submit("hang"), bench.worker()

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(worker, "watch", broken)
    with pytest.raises(ZeroDivisionError):
        serve_once(worker, Pace(poll_s=0.05, heartbeat_s=0.1, watch_s=0.05), threading.Event())
    assert bench.queue.get(request_id).state == "pending"
