"""A worker put together from settings, and run until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from backend.acceptance import acceptance_of
from backend.executors.local import LocalExecutor
from backend.publishing import Publisher
from backend.schedule import Pace, serve, serve_once, stop_on_signals
from backend.worker import Ended, Worker
from moe_cap.hardware import detect_machine
from moe_cap.queue import Queue
from moe_cap.results import ResultStore
from moe_cap.settings import Settings
from moe_cap.store import open_store

LOG = logging.getLogger(__name__)


def build_worker(settings: Settings, environ: Mapping[str, str]) -> tuple[Worker, Pace]:
    """The worker that `settings` describe; `environ` is what its evaluations inherit, without the secrets."""
    queue_store = open_store(settings.queue, token=settings.hf_token)
    publisher = Publisher(ResultStore(open_store(settings.results, token=settings.hf_token)))
    worker = Worker(
        Queue(queue_store, lease_s=settings.lease_s, max_attempts=settings.max_attempts),
        publisher,
        LocalExecutor(environ, model_token=settings.model_token),
        name=settings.worker_name,
        accepts=acceptance_of(detect_machine(), folders=settings.allow_folders, engines=settings.engines),
        runs=settings.home / "runs",
        run_limit_s=settings.run_limit_s,
        retry_s=queue_store.heartbeat_s,
        monotonic=time.monotonic,
        after_publishing=publisher.refresh_table,
    )
    return worker, Pace(settings.poll_s, queue_store.heartbeat_s)


def run_worker(settings: Settings, environ: Mapping[str, str], *, once: bool) -> Ended | None:
    """Work until SIGTERM or Ctrl-C, or, with `once`, until one request is done or none waits.

    Returns:
        How the last request left the worker; None if there was none.
    """
    worker, pace = build_worker(settings, environ)
    stop = threading.Event()
    stop_on_signals(stop)
    LOG.info("worker %s, queue %s, results %s", settings.worker_name, settings.queue, settings.results)
    (serve_once if once else serve)(worker, pace, stop)
    return worker.last
