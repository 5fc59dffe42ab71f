"""From how a process ended to a reason that a person understands, and to whether another attempt makes sense."""

from __future__ import annotations

import signal

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.executors.base import Failed
from moe_cap import errors
from moe_cap.measure.guarded import Ending

_NOT_AGAIN: tuple[type[Exception], ...] = (
    errors.InvalidInputError,
    errors.OutOfMemoryError,
    errors.RunTimeoutError,
    MemoryError,
)
"""What would end the same way again on this machine."""


class Failure(BaseModel):
    """The `failure.json` of an evaluation that knew why it could not go on."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    error: str
    message: str


def parse_failure(text: str) -> Failure | None:
    """Read a failure.json; None when it is not one (cut off by a kill)."""
    try:
        return Failure.model_validate_json(text)
    except ValidationError:
        return None


def explain(ending: Ending, failure: Failure | None, last_line: str) -> Failed:
    """Say why an evaluation without a result ended, from the most certain evidence to the least."""
    if failure is not None:
        return Failed(failure.message, retry=not _would_happen_again(failure.error))
    if ending.status is None:
        return Failed("the evaluation's guard was killed, so how it ended is not known", retry=True)
    if ending.status == -signal.SIGKILL:
        return _killed(ending)
    if ending.status < 0:
        return Failed(f"the evaluation crashed with {_signal_name(-ending.status)}{_after(last_line)}", retry=True)
    if ending.status == 0:
        return Failed(f"the evaluation ended without a result{_after(last_line)}", retry=True)
    # 2 is the command line's code for input that cannot be used
    return Failed(f"the evaluation ended with exit code {ending.status}{_after(last_line)}", retry=ending.status != 2)


def _killed(ending: Ending) -> Failed:
    size = "" if ending.max_rss_bytes is None else f" (its largest process held {ending.max_rss_bytes / 1e9:.1f} GB)"
    if ending.oom_kills:
        return Failed(f"out of memory: the kernel stopped the evaluation{size}", retry=False)
    return Failed(f"killed from outside with SIGKILL, probably for lack of memory{size}", retry=True)


def _would_happen_again(error: str) -> bool:
    kind = getattr(errors, error, MemoryError if error == "MemoryError" else None)
    return isinstance(kind, type) and issubclass(kind, _NOT_AGAIN)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _after(last_line: str) -> str:
    return f"; its last words: {last_line}" if last_line else ""
