"""About how long an evaluation takes: a rough figure for a person who decides whether to wait.

Every step is the slowest of three: reading its bytes, computing its FLOPs, and being launched. On top come the start of
the engine and the loading of the weights. Peaks are the machine's own probe where there is one; what is assumed
otherwise stands in the answer. It is an estimate, marked so, and belongs into no result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moe_cap.architecture import Architecture
from moe_cap.hardware import Device
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step, decode_step, prefill_step, with_uniform_routing
from moe_cap.submission import Submission

REACHED = 0.5
"""Share of a peak that an engine is assumed to reach."""
START_S = 20.0
"""Importing an engine and the accuracy harness, and probing the machine the first time."""
LOAD_BYTES_PER_S = 0.5e9
LAUNCH_S_PER_LAYER = 1.0e-3
"""What an eager framework spends on a layer however small it is."""
ROUTING_PASSES = 1.5
"""The routing pass repeats every request once, with capture; warming up costs about half a pass."""
REQUESTS_PER_LEVEL, BATCHES_PER_LEVEL = 16, 4
"""What the evaluator takes where the submission leaves the number open."""
DEFAULT_BYTES_PER_S, DEFAULT_FLOPS_PER_S = 10e9, 100e9


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What a task asks of an engine: its problems, requests per problem, and the tokens of a request, about."""

    problems: int
    requests: int
    prompt_tokens: int
    answer_tokens: int


TASK_WORK: Mapping[str, TaskWork] = {
    "cap_arithmetic": TaskWork(300, 1, 8, 8),
    "cap_copy": TaskWork(300, 1, 26, 19),
    "cap_choice": TaskWork(300, 4, 24, 1),
    "gsm8k": TaskWork(1319, 1, 900, 160),
}
"""By name. A multiple-choice problem is a request per choice; GSM8K's test set with five solved examples."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """What the machine can do at best.

    Attributes:
        source: where the two numbers come from, for people.
    """

    bytes_per_s: float
    flops_per_s: float
    source: str


DEFAULT_PEAKS = Peaks(DEFAULT_BYTES_PER_S, DEFAULT_FLOPS_PER_S, "an assumed 10 GB/s and 100 GFLOP/s: not probed yet")


class _ProbeFile(BaseModel):
    """The part of a kept probe that matters here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    copy_bytes_per_s: float
    gemm_flops_per_s: dict[str, float]
    device: str


def read_peaks(home: Path, compute_dtype: str, device: Device | None) -> Peaks:
    """The datasheet of the device that was asked for, else this machine's newest probe, else an assumption."""
    peak = device.peak_bytes_per_s.value if device else None
    cell = device.peak_flops_per_s.get(compute_dtype) if device else None
    if device and peak and cell and cell.value:
        return Peaks(peak, cell.value, f"the datasheet of {device.id}")
    kept = sorted((home / "probe").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept:
        try:
            probe = _ProbeFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError):
            continue
        flops = probe.gemm_flops_per_s.get(compute_dtype) or max(probe.gemm_flops_per_s.values(), default=0.0)
        if flops > 0 and probe.copy_bytes_per_s > 0:
            return Peaks(probe.copy_bytes_per_s, flops, f"the probe of {probe.device}")
    return DEFAULT_PEAKS


def estimate_s(
    submission: Submission, arch: Architecture, storage: StoragePlan, weight_file_bytes: int, peaks: Peaks
) -> float:
    """Seconds from claim to result, roughly."""
    clock = _Clock(arch, storage, peaks)
    loads = sum(_level_s(submission, level, clock) for level in submission.concurrency)
    tasks = sum(_task_s(submission, TASK_WORK[name], clock) for name in submission.tasks if name in TASK_WORK)
    return START_S + weight_file_bytes / LOAD_BYTES_PER_S + loads + tasks


@dataclass(frozen=True, slots=True)
class _Clock:
    """How long steps of one model take on one machine."""

    arch: Architecture
    storage: StoragePlan
    peaks: Peaks

    def step_s(self, bare: Step) -> float:
        step = with_uniform_routing(bare, self.arch)
        reading = step_bytes(self.arch, step, self.storage).total_read / self.peaks.bytes_per_s
        computing = step_flops(self.arch, step).total / self.peaks.flops_per_s
        return max(reading / REACHED, computing / REACHED, LAUNCH_S_PER_LAYER * self.arch.num_layers)

    def batch_s(self, batch: int, prompt_tokens: int, answer_tokens: int) -> float:
        """A batch from its prompts to its last answer token."""
        middle = prompt_tokens + answer_tokens // 2
        prefill = self.step_s(prefill_step([prompt_tokens] * batch))
        return prefill + (answer_tokens - 1) * self.step_s(decode_step([middle] * batch))


def _level_s(submission: Submission, concurrency: int, clock: _Clock) -> float:
    requests = submission.num_requests or max(REQUESTS_PER_LEVEL, BATCHES_PER_LEVEL * concurrency)
    batches = -(-requests // concurrency)
    passes = submission.repeats + ROUTING_PASSES
    return passes * batches * clock.batch_s(concurrency, submission.input_tokens, submission.output_tokens)


def _task_s(submission: Submission, work: TaskWork, clock: _Clock) -> float:
    requests = work.requests * min(work.problems, submission.accuracy_limit or work.problems)
    batch = max(submission.concurrency)
    return -(-requests // batch) * clock.batch_s(batch, work.prompt_tokens, work.answer_tokens)
