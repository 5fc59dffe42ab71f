"""When the worker does what. APScheduler keeps the time; one thread does the work, so that no two jobs ever overlap."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import FrameType

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from backend.worker import Worker

LOG = logging.getLogger(__name__)
WATCH_S = 0.5
LATE_IS_FINE = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
"""A job that waits behind a slow one (a Hub that does not answer) runs once, late, instead of being dropped."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses in seconds: between looks at the queue, at the evaluation, and between renewals of the lease."""

    poll_s: float
    heartbeat_s: float
    watch_s: float = WATCH_S


@dataclass(frozen=True, slots=True)
class Job:
    """What is done every `every_s` seconds, for the first time at once or after the first pause."""

    call: Callable[[], None]
    every_s: float
    at_once: bool = True


def serve(worker: Worker, pace: Pace, stop: threading.Event) -> None:
    """Serve the queue until `stop` is set, then give back what is in hand.

    Raises:
        Exception: what a job raised and the worker did not expect. It stops serving at once: a worker that carried on
            would keep its lease for ever.
    """

    def watch_and_go_on() -> None:
        was_busy = worker.busy
        worker.watch()
        if was_busy and not worker.busy:
            worker.poll()

    jobs = [
        Job(worker.poll, pace.poll_s),
        Job(watch_and_go_on, pace.watch_s),
        Job(worker.heartbeat, pace.heartbeat_s, at_once=False),
    ]
    try:
        run_until(stop, jobs)
    finally:
        worker.leave()


def serve_once(worker: Worker, pace: Pace, stop: threading.Event) -> None:
    """Take one request, or none if none waits, and see it through; setting `stop` gives it back.

    Raises:
        Exception: as `serve`.
    """

    def watch_and_stop() -> None:
        worker.watch()
        if not worker.busy:
            stop.set()

    worker.poll()
    if worker.busy:
        jobs = [Job(watch_and_stop, pace.watch_s), Job(worker.heartbeat, pace.heartbeat_s, at_once=False)]
        try:
            run_until(stop, jobs)
        finally:
            worker.leave()


def run_until(stop: threading.Event, jobs: Sequence[Job]) -> None:
    """Do `jobs` in one thread until `stop` is set; returns when the one that is running has ended.

    Raises:
        Exception: the first that a job raised; it sets `stop` too.
    """
    raised: list[BaseException] = []

    def give_up(event: JobExecutionEvent) -> None:
        raised.append(event.exception)
        stop.set()

    one_thread = {"default": ThreadPoolExecutor(1)}
    scheduler = BackgroundScheduler(executors=one_thread, job_defaults=LATE_IS_FINE, timezone=UTC)
    scheduler.add_listener(give_up, EVENT_JOB_ERROR)
    for job in jobs:
        first = {"next_run_time": datetime.now(UTC)} if job.at_once else {}
        scheduler.add_job(job.call, "interval", seconds=job.every_s, **first)
    scheduler.start()
    stop.wait()
    scheduler.shutdown(wait=True)
    if raised:
        raise raised[0]


def stop_on_signals(stop: threading.Event) -> None:
    """The first signal asks for a clean end; the second one ends the process, and the guards clear up behind it."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        LOG.info("%s: giving back what is in hand", signal.Signals(signum).name)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
