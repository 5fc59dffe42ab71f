"""A worker process with a short lease that evaluates with `fake_evaluation.py`: something to kill.

python -m tests.backend.fake_worker ROOT serve|once
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from backend.executors.local import LocalExecutor
from backend.schedule import Pace, serve, serve_once, stop_on_signals
from backend.worker import Worker
from moe_cap.queue import Queue
from moe_cap.result import Result
from tests.backend.conftest import QuickStore, fake_command

LEASE_S = 1.5


class FiledResults:
    """Results as files that several processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def check_writable(self) -> None:
        pass

    def publish(self, result: Result) -> str:
        (self.folder / result.id).write_bytes(result.to_json())
        return result.id

    def has(self, result_id: str) -> bool:
        return (self.folder / result_id).exists()


def main(root: Path, how: str) -> None:
    worker = Worker(
        Queue(QuickStore(root / "queue"), lease_s=LEASE_S),
        FiledResults(root / "results"),
        LocalExecutor(os.environ, command=fake_command, grace_s=0.3),
        name=f"process-{os.getpid()}",
        accepts=lambda _: True,
        runs=root / "runs",
        run_limit_s=60.0,
        retry_s=QuickStore.heartbeat_s,
        monotonic=time.monotonic,
        after_publishing=lambda: None,
    )
    stop = threading.Event()
    stop_on_signals(stop)
    (serve_once if how == "once" else serve)(worker, Pace(poll_s=0.1, heartbeat_s=0.1, watch_s=0.05), stop)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
