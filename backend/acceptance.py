"""Which requests a worker takes: those for its hardware, with an engine that it has, and folders only where allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from moe_cap.errors import SubmissionError
from moe_cap.hardware import Machine
from moe_cap.offerings import listed_engines
from moe_cap.queue import Request
from moe_cap.submission import Submission, parse_submission


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What this machine can serve.

    Attributes:
        devices: canonical ids of its devices.
        engines: names of the engines that are installed.
        folders: whether a submission may name a folder of this machine.
    """

    devices: frozenset[str]
    engines: frozenset[str]
    folders: bool

    def __call__(self, request: Request) -> bool:
        """Whether to take a request; one that nobody can read is taken, so that it fails with a reason."""
        try:
            submission = parse_submission(request.submission)
        except SubmissionError:
            return True
        return self.refusal(submission) is None

    def refusal(self, submission: Submission) -> str | None:
        """Why this machine cannot serve it, None if it can."""
        if submission.hardware is not None and submission.hardware not in self.devices:
            return (
                f"it needs {submission.hardware}, this machine has {', '.join(sorted(self.devices)) or 'nothing known'}"
            )
        if submission.engine not in self.engines:
            return f"the engine {submission.engine} is not installed here"
        if submission.is_folder and not self.folders:
            return "folders of this machine may not be named"
        return None


def acceptance_of(
    machine: Machine, *, folders: bool, engines: Path, has: Callable[[str], bool] | None = None
) -> Acceptance:
    """What `machine` can serve with what is installed.

    Args:
        machine: this one.
        folders: whether a submission may name one.
        engines: where engines have environments of their own.
        has: whether a package is installed.
    """
    installed = has or (lambda library: find_spec(library) is not None)
    names = frozenset(
        offer.name
        for offer in listed_engines()
        if all(map(installed, offer.libraries))
        and (offer.environment is None or (engines / offer.environment).is_dir())
    )
    devices = frozenset(device.device_id for device in machine.devices if device.device_id is not None)
    return Acceptance(devices, names, folders)
