"""The same worker over dataset repositories, with the real client against a double of the Hub."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from backend.executors.local import LocalExecutor
from backend.publishing import Publisher
from backend.worker import Worker
from moe_cap.queue import Queue, State
from moe_cap.results import TABLE, ResultStore
from moe_cap.store import FolderStore, HubStore
from moe_cap.submission import Submission
from tests.backend.conftest import watch_to_the_end
from tests.hub.app import Server


def worker_of(queue: Queue, publisher: Publisher, executor: LocalExecutor, runs: Path) -> Worker:
    return Worker(
        queue, publisher, executor, name="gpu-1", accepts=lambda _: True, runs=runs, run_limit_s=60.0,
        retry_s=2.0, monotonic=time.monotonic, after_publishing=publisher.refresh_table,
    )  # fmt: skip


def test_request_in_a_repository_becomes_a_result_and_a_row_of_the_table(
    hub_stores: Callable[[], HubStore], executor: LocalExecutor, tmp_path: Path
) -> None:
    queue, store = Queue(hub_stores(), lease_s=60.0), hub_stores()
    publisher = Publisher(ResultStore(store))
    submission = Submission(model="fake/ok")
    queue.submit(submission.model_dump(mode="json"), request_id=submission.id)
    worker = worker_of(queue, publisher, executor, tmp_path / "runs")
    worker.poll()
    worker.heartbeat()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the client warns about its own upload
        watch_to_the_end(worker)
    request = queue.get(submission.id)
    assert request.state is State.FINISHED
    assert list(request.result_ids) == ResultStore(store).ids()
    table = pd.read_parquet(io.BytesIO(store.read(TABLE, store.head())))
    assert list(table["result"]) == list(request.result_ids)


@pytest.mark.parametrize("may_read", [True, False])
def test_worker_whose_token_may_not_write_the_results_takes_nothing(
    hub: Server, hub_stores: Callable[[], HubStore], executor: LocalExecutor, tmp_path: Path, may_read: bool
) -> None:
    queue = Queue(FolderStore(tmp_path / "queue"), lease_s=60.0)
    name = hub_stores().repo_id
    hub.hub.repos["dataset", name].private = not may_read
    publisher = Publisher(ResultStore(HubStore(name, token="hf_bob", endpoint=hub.url, cache_folder=tmp_path / "bob")))
    submission = Submission(model="fake/ok")
    queue.submit(submission.model_dump(mode="json"), request_id=submission.id)
    worker = worker_of(queue, publisher, executor, tmp_path / "runs")
    worker.poll()
    assert queue.get(submission.id).state is State.PENDING
    assert queue.get(submission.id).history == ()
