"""A process under guard, seen from its owner: start it, look at it, stop it with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moe_cap.measure import guard

INHERITED = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)
INHERITED_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "HSA_")
"""What every process that we start gets of ours; all else, secrets of any name among it, is left behind."""


def inherited(environ: Mapping[str, str], also: Collection[str] = (), prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """What of an environment is handed on: the list above, names `also`, and whatever begins with `prefixes`."""
    names, begins = {*INHERITED, *also}, (*INHERITED_PREFIXES, *prefixes)
    return {name: value for name, value in environ.items() if name in names or name.startswith(begins)}


@dataclass(frozen=True, slots=True)
class Ending:
    """How the guarded process ended.

    Attributes:
        status: exit code, or minus the number of the signal that killed it; None when not even the guard could tell.
        oom_kills: processes that the kernel killed for memory meanwhile: of our control group where it counts them,
            else of the whole machine, so they need not have been ours.
        max_rss_bytes: largest resident size of one of its processes; None when not known.
    """

    status: int | None
    oom_kills: int = 0
    max_rss_bytes: int | None = None


class _EndingFile(BaseModel):
    """What the guard wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: int
    asked_to_stop: bool
    oom_kills: int
    max_rss_bytes: int


class GuardedProcess:
    """One command in a session of its own that ends when it is stopped or when this process is gone.

    Args:
        command: argument list.
        log: what the command says is appended to it.
        ending: file in which the guard writes how it ended.
        environ: the command's whole environment.
        grace_s: between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ending: Path,
        environ: Mapping[str, str],
        grace_s: float,
    ) -> None:
        for path in (log, ending):
            path.parent.mkdir(parents=True, exist_ok=True)
        ending.unlink(missing_ok=True)
        self._ending = ending
        self._stop_s = 2 * grace_s + guard.KILL_S
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", guard.__file__, str(self._ending), str(grace_s), *command],
                stdin=subprocess.PIPE,  # the guard ends everything when this pipe closes
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(environ),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The guard's process id, which is the session's too."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the command and all that it started are gone."""
        if self._process.poll() is None:
            return False
        self._let_go()
        return True

    def wait(self, limit_s: float | None = None) -> None:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within the limit; it runs on.
        """
        self._process.wait(limit_s)
        self._let_go()

    def stop(self) -> None:
        """SIGTERM to the command, SIGKILL to what is left after the grace; returns when it is over."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(self._stop_s)
            except subprocess.TimeoutExpired:  # the guard itself hangs
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._let_go()

    def read_ending(self) -> Ending:
        """How it ended, as far as the guard could tell."""
        try:
            said = _EndingFile.model_validate(json.loads(self._ending.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValidationError, json.JSONDecodeError):
            return Ending(status=None)
        return Ending(said.status, said.oom_kills, said.max_rss_bytes)

    def _let_go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
