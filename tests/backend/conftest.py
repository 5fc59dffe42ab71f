"""Real processes with short leases: an executor that runs `fake_evaluation.py`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from backend.executors.base import Job, Outcome
from backend.executors.local import LocalEvaluation, LocalExecutor
from moe_cap.submission import Submission

T = TypeVar("T")
FAKE = Path(__file__).with_name("fake_evaluation.py")


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


@pytest.fixture
def executor() -> LocalExecutor:
    return LocalExecutor(os.environ, command=fake_command, grace_s=0.5)


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
