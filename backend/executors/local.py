"""Evaluations as processes of this machine, each in its own session, under a guard that outlives neither side."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from backend.executors.base import Failed, Job, Outcome, Succeeded
from backend.executors.endings import explain, parse_failure
from moe_cap.errors import ResultError
from moe_cap.measure.guarded import GuardedProcess, inherited
from moe_cap.queue import Progress
from moe_cap.result import Result, parse_result

GRACE_S = 5.0
"""What an evaluation gets to put its engine away; `docker stop` gives the whole worker ten seconds."""
KEPT_RUNS = 50
"""Ended runs whose logs and raw output stay on this machine, for who wants to know why one failed."""
TAIL_LINES = 12
TAIL_BYTES = 8192
HANDED_ON = (
    "PYTHONPATH", "VIRTUAL_ENV", "TZ", "XDG_CACHE_HOME", "TOKENIZERS_PARALLELISM", "SPACE_ID",
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE",
    "HF_HUB_DISABLE_XET", "HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "TRANSFORMERS_OFFLINE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "MOE_CAP_HOME", "MOE_CAP_MACHINE", "MOE_CAP_ENGINES",
)  # fmt: skip
"""What an evaluation gets beside the list that all processes share: where models, engines and their caches lie and how
the Hub is reached."""
HANDED_ON_PREFIXES = ("TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "KMP_", "GOMP_", "OPENBLAS_")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class _ProgressFile(BaseModel):
    """What an evaluation says about itself while it runs."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    stage: str = "starting"
    fraction: float | None = None
    eta_s: float | None = None


def evaluate_command(job: Job) -> list[str]:
    """The command that measures a job: `moe-cap evaluate` of this very environment."""
    return [
        sys.executable, "-m", "moe_cap.cli", "evaluate", str(job.folder / "request.json"),
        "--output", str(job.folder), "--progress", str(job.folder / "progress.json"), "--run-uuid", job.run_uuid,
    ]  # fmt: skip


def scrub(environ: Mapping[str, str], *, model_token: str | None) -> dict[str, str]:
    """The environment of an evaluation: what it needs and no more, so that nothing it runs can write to the stores.

    Args:
        environ: the worker's own.
        model_token: read-only token for gated models, the one secret that an evaluation may have.
    """
    kept = inherited(environ, HANDED_ON, HANDED_ON_PREFIXES)
    kept |= {"PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1"}  # the log is read live, and bars are no lines
    if model_token:
        return kept | {"HF_TOKEN": model_token, "MOE_CAP_MODEL_TOKEN": model_token}  # libraries ask one, we the other
    return kept | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}  # nor the one that `hf auth login` left in the home folder


def forget_old_runs(runs: Path, *, keep: int) -> None:
    """Remove the folders of all but the newest `keep` runs that have ended."""
    endings = sorted(runs.glob("*/ending.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for ending in endings[keep:]:
        shutil.rmtree(ending.parent, ignore_errors=True)


class LocalExecutor:
    """Runs each evaluation as a subprocess."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        model_token: str | None = None,
        command: Callable[[Job], list[str]] = evaluate_command,
        grace_s: float = GRACE_S,
    ) -> None:
        self._environ = scrub(environ, model_token=model_token)
        self._command = command
        self._grace_s = grace_s

    def start(self, job: Job) -> LocalEvaluation:
        """Write the request down and start its evaluation."""
        forget_old_runs(job.folder.parent, keep=KEPT_RUNS)
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "request.json").write_text(job.submission.model_dump_json(indent=1), encoding="utf-8")
        process = GuardedProcess(
            self._command(job),
            log=job.folder / "log.txt",
            ending=job.folder / "ending.json",
            environ=self._environ,
            grace_s=self._grace_s,
        )
        return LocalEvaluation(job.folder, process)

    def left(self, job: Job) -> Result | None:
        """Read the record in the folder of a run that ended before its worker could publish."""
        try:
            return parse_result(_read_text(job.folder / "result.json"))
        except ResultError:  # none, or one that was cut off
            return None


class LocalEvaluation:
    """One process tree and the files it writes: progress.json, log.txt, then result.json or failure.json."""

    def __init__(self, folder: Path, process: GuardedProcess) -> None:
        self._folder = folder
        self._process = process
        self._outcome: Outcome | None = None

    @property
    def pid(self) -> int:
        """The guard's process id, which is its session's too."""
        return self._process.pid

    def progress(self) -> Progress:
        """The last whole progress.json, with the end of the log."""
        try:
            said = _ProgressFile.model_validate_json(_read_text(self._folder / "progress.json") or "{}")
        except ValidationError:
            said = _ProgressFile(stage="running")
        return Progress(said.stage, said.fraction, said.eta_s, self._log_tail())

    def outcome(self) -> Outcome | None:
        """Read once everything has ended."""
        if self._outcome is None and self._process.has_ended():
            self._outcome = self._read_outcome()
        return self._outcome

    def stop(self) -> None:
        """Stop the whole tree."""
        self._process.stop()

    def _read_outcome(self) -> Outcome:
        if record := _read_text(self._folder / "result.json"):
            try:
                return Succeeded(parse_result(record))
            except ResultError as error:
                return Failed(f"the evaluation wrote a record that does not hold together: {error}", retry=False)
        failure = parse_failure(_read_text(self._folder / "failure.json"))
        return explain(self._process.read_ending(), failure, "".join(self._log_tail()[-1:]))

    def _log_tail(self) -> tuple[str, ...]:
        """Last lines of the log as a terminal would show them: what a carriage return overwrote is gone."""
        try:
            with (self._folder / "log.txt").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = log.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ()
        shown = [ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in text.split("\n")]
        return tuple([line for line in shown if line.strip()][-TAIL_LINES:])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
