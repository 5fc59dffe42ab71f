"""Real processes with short leases: an executor that runs `fake_evaluation.py`, a queue in a folder."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from backend.executors.base import Job, Outcome
from backend.executors.local import LocalEvaluation, LocalExecutor
from backend.worker import Worker
from moe_cap.queue import Queue, Request
from moe_cap.result import Result
from moe_cap.store import FolderStore
from moe_cap.submission import Submission

FAKE = Path(__file__).with_name("fake_evaluation.py")
T = TypeVar("T")


def fake_command(job: Job) -> list[str]:
    return [
        sys.executable, str(FAKE), str(job.folder / "request.json"),
        "--output", str(job.folder), "--progress", str(job.folder / "progress.json"), "--run-uuid", job.run_uuid,
    ]  # fmt: skip


def wait_for(look: Callable[[], T | None], *, limit_s: float = 30.0) -> T:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"did not happen within {limit_s} s")


def read_pid(path: Path) -> int:
    return wait_for(lambda: int(path.read_text() or 0) if path.exists() else None)


def is_alive(pid: int) -> bool:
    """Running or stopped; a zombie that nobody has waited for yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def outcome_of(evaluation: LocalEvaluation) -> Outcome:
    return wait_for(evaluation.outcome)


class QuickStore(FolderStore):
    """A folder that bears heartbeats often, so that a lease can be short."""

    heartbeat_s = 0.1


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


class HeldResults:
    """Results in memory."""

    def __init__(self) -> None:
        self.published: dict[str, Result] = {}

    def check_writable(self) -> None:
        pass

    def publish(self, result: Result) -> str:
        self.published[result.id] = result
        return result.id

    def has(self, result_id: str) -> bool:
        return result_id in self.published


@dataclass
class Bench:
    """A queue, results, and any number of workers on them, on one clock."""

    root: Path
    executor: LocalExecutor
    clock: Clock = field(default_factory=Clock)
    results: HeldResults = field(default_factory=HeldResults)
    refreshed: list[int] = field(default_factory=list)
    run_limit_s: float = 1000.0
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = QuickStore(self.root / "queue")
        self.queue = Queue(self.store, lease_s=30.0, max_attempts=3, clock=self.clock)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def worker(self, accepts: Callable[[Request], bool] = lambda _: True, runs: Path | None = None) -> Worker:
        worker = Worker(
            self.queue, self.results, self.executor, name=f"worker-{len(self.workers)}", accepts=accepts,
            runs=runs or self.runs, run_limit_s=self.run_limit_s, retry_s=self.store.heartbeat_s, monotonic=self.clock,
            after_publishing=lambda: self.refreshed.append(len(self.results.published)),
        )  # fmt: skip
        self.workers.append(worker)
        return worker

    def submit(self, kind: str) -> str:
        submission = Submission(model=f"fake/{kind}")
        return self.queue.submit(submission.model_dump(mode="json"), request_id=submission.id).id

    def starts(self) -> int:
        path = self.runs / "STARTS"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def folder(self, request_id: str) -> Path:
        """The newest run's."""
        return max(self.runs.glob(f"{request_id}-*"), key=lambda path: path.stat().st_mtime)


def watch_to_the_end(worker: Worker) -> None:
    def step() -> bool:
        worker.watch()
        return not worker.busy

    wait_for(step)


@pytest.fixture
def executor() -> LocalExecutor:
    return LocalExecutor(os.environ, command=fake_command, grace_s=0.5)


@pytest.fixture
def bench(executor: LocalExecutor, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, executor)
    yield bench
    for worker in bench.workers:
        worker.leave()


@pytest.fixture
def start(executor: LocalExecutor, tmp_path: Path) -> Iterator[Callable[[str], LocalEvaluation]]:
    started: list[LocalEvaluation] = []

    def start(kind: str) -> LocalEvaluation:
        submission = Submission(model=f"fake/{kind}")
        started.append(executor.start(Job(submission, f"run-{len(started)}", tmp_path / "runs" / kind)))
        return started[-1]

    yield start
    for evaluation in started:
        evaluation.stop()
