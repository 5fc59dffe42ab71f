"""A worker beside a program that has something else to do (the page): started with it, stopped with it, restarted."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import moe_cap
from moe_cap.measure.guarded import GuardedProcess

LOG = logging.getLogger(__name__)
GRACE_S = 20.0
"""What a worker gets to stop its evaluation and to give its request back."""
RESTART_S = 5.0
"""Pause before the first restart; it doubles while the worker dies young."""
LONGEST_PAUSE_S = 300.0
YOUNG_S = 60.0
LOG_BYTES = 4 * 2**20
"""A log that is larger when a worker starts is begun anew."""
COMMAND = (sys.executable, "-m", "backend")
IMPORTED_FROM = tuple(dict.fromkeys(str(Path(file).resolve().parents[1]) for file in (moe_cap.__file__, __file__)))
"""Where this process found the packages: on a Space, which installs none, only its own `sys.path` names these."""


class EmbeddedWorker:
    """Keeps one worker process running until it is stopped or this process is gone, however that happens.

    The worker is a process of its own, so that nothing it does can slow or end the page, and so that killing it is a
    case like any other: it comes back after a moment, and its lease decides what happens to the request it had.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        home: Path,
        *,
        command: Sequence[str] = COMMAND,
        restart_s: float = RESTART_S,
        grace_s: float = GRACE_S,
    ) -> None:
        given = environ.get("PYTHONPATH")
        self._environ = {**environ, "PYTHONPATH": os.pathsep.join([*IMPORTED_FROM, *([given] if given else [])])}
        self._folder = home / "worker"
        self._command = command
        self._restart_s = restart_s
        self._grace_s = grace_s
        self._stopping = threading.Event()
        self._starting = threading.Lock()  # none is started once stopping has begun
        self._process: GuardedProcess | None = None
        self._thread = threading.Thread(target=self._keep_running, name="embedded-worker", daemon=True)

    @property
    def log(self) -> Path:
        """Where the worker writes what it does."""
        return self._folder / "log.txt"

    @property
    def is_running(self) -> bool:
        """Whether its process is there now."""
        return self._process is not None and not self._process.has_ended()

    def start(self) -> None:
        """Start it; returns at once."""
        self._start_process()
        self._thread.start()

    def stop(self) -> None:
        """Stop it and return when it has given back what it had."""
        with self._starting:
            self._stopping.set()
        if self._process is not None:
            self._process.stop()
            self._thread.join()

    def _start_process(self) -> None:
        with self._starting:
            if not self._stopping.is_set():
                if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
                    self.log.unlink()
                self._process = GuardedProcess(
                    self._command,
                    log=self.log,
                    ending=self._folder / "ending.json",
                    environ=self._environ,
                    grace_s=self._grace_s,
                )

    def _keep_running(self) -> None:
        pause_s = self._restart_s
        while self._process is not None:
            started_s = time.monotonic()
            self._process.wait()
            grown_old = time.monotonic() - started_s > YOUNG_S
            pause_s = self._restart_s if grown_old else pause_s
            if self._stopping.wait(pause_s):
                return
            LOG.warning("the worker ended (status %s) and is started again", self._process.read_ending().status)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._start_process()
