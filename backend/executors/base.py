"""What an executor must do: start one evaluation somewhere, say how far it is, and say how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moe_cap.queue import Progress
from moe_cap.result import Result
from moe_cap.submission import Submission


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation to run.

    Attributes:
        submission: what to measure.
        run_uuid: the run's name; the result's id follows from it (`moe_cap.result.result_id`).
        folder: local folder of this run, for its log and its output; made by the executor.
    """

    submission: Submission
    run_uuid: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It ran to its end; `result` was read and checked."""

    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not. `reason` is for the person who submitted; `retry` says whether another attempt may go better."""

    reason: str
    retry: bool


Outcome = Succeeded | Failed


class Evaluation(Protocol):
    """One evaluation that was started."""

    def progress(self) -> Progress:
        """Where it is now; answers at once."""

    def outcome(self) -> Outcome | None:
        """How it ended, None while it runs; answers at once, and the same every time."""

    def stop(self) -> None:
        """End it and everything that it started, and return when that is done; nothing to do if it has ended."""


class Executor(Protocol):
    """A place where evaluations run."""

    def start(self, job: Job) -> Evaluation:
        """Start one.

        Raises:
            OSError: the place has no room for it (disk, processes).
        """

    def left(self, job: Job) -> Result | None:
        """The whole result that an earlier run of this job left on this machine; None if there is none."""
