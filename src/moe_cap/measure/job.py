"""One evaluation as a process: request file in, result or failure file out, progress and log beside it.

Files in the output folder: `result.json` (the Result) or `failure.json` ({"error": class of moe_cap.errors,
"message": for people}), `samples-<task>.jsonl` (answers and scores), `trace-<load>.npz` (which experts every token went
to), `evaluate.log`, `engine.log`. Everything runs in this process, so that killing its group leaves nothing behind.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import datasets
import transformers

from moe_cap.errors import InvalidInputError, MoECapError
from moe_cap.measure.evaluate import Job, evaluate
from moe_cap.measure.memory import memory_errors
from moe_cap.measure.progress import Progress
from moe_cap.settings import Settings
from moe_cap.submission import parse_submission

log = logging.getLogger("moe_cap")

DONE, FAILED, REFUSED = 0, 1, 2


def run(
    request: Path, output: Path, settings: Settings, *, progress: Path | None = None, run_uuid: str | None = None
) -> int:
    """Evaluate the submission in a JSON file.

    Args:
        request: a Submission as JSON.
        output: folder for everything that comes out; made if it is not there.
        settings: where this machine keeps its local state.
        progress: file that says where the run stands.
        run_uuid: identity of the run; a new one where the caller has none.

    Returns:
        Exit code: 0 measured, 1 failed this time, 2 refused for good.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "failure.json"):
        (output / name).unlink(missing_ok=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", force=True)
    log_to(output / "evaluate.log")
    signal.signal(signal.SIGTERM, _leave)
    try:
        with memory_errors("the evaluation"):
            _measure(request, output, settings, progress, run_uuid or uuid.uuid4().hex)
    except MoECapError as error:
        log.error("%s: %s", type(error).__name__, error)
        write_failure(output, error)
        return REFUSED if isinstance(error, InvalidInputError) else FAILED
    except Exception as error:
        write_failure(output, error)
        raise
    return DONE


def _measure(request: Path, output: Path, settings: Settings, progress: Path | None, run_uuid: str) -> None:
    job = Job(
        submission=parse_submission(request.read_bytes()),
        run_uuid=run_uuid,
        output=output,
        settings=settings,
        environ=os.environ,
        now=datetime.now(UTC),
        progress=Progress(progress, time.monotonic),
    )
    replace_file(output / "result.json", evaluate(job).to_json())


def log_to(path: Path) -> None:
    """Stages and failures to a file, in place of the one before; the libraries' bars to nowhere."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    for chatty in ("lm_eval", "torchao"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    log.setLevel(logging.INFO)
    for old in [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]:
        log.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """End as if by `exit`, so that a server engine is stopped on the way out."""
    raise SystemExit(128 + number)


def write_failure(output: Path, error: Exception) -> None:
    """Why there is no result, beside where it would lie."""
    message = str(error) if isinstance(error, MoECapError) else f"unexpected {type(error).__name__}: {error}"
    replace_file(output / "failure.json", json.dumps({"error": type(error).__name__, "message": message}).encode())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole: no reader sees half of it, and a kill in the middle leaves what was there."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
