"""The walk from a submission to its result; a straight line.

Model -> engine -> probe -> for each level: warm-up, timing pass, routing pass -> accuracy through the same engine ->
metrics -> result. Nothing is published here, and nothing half-measured comes back: every way to fail is a named
error.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from moe_cap.architecture import Architecture, parse_config
from moe_cap.hardware import detect_machine
from moe_cap.hardware.own_figures import OwnFigures, read_own_figures
from moe_cap.measure.accuracy import measure_accuracy
from moe_cap.measure.costs import assumptions
from moe_cap.measure.engines.base import Session
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.environment import describe_environment
from moe_cap.measure.level import time_level, trace_repeats
from moe_cap.measure.lock_step import requests_for
from moe_cap.measure.machine import MeasuredMachine, identify_machine
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.measure.points import LevelResult, System, build_point
from moe_cap.measure.power import PowerMeter, open_power_meter
from moe_cap.measure.probe import QUIET_SHARE, busy_share, probe_machine
from moe_cap.measure.progress import Progress
from moe_cap.measure.prompts import Passages, build_requests, solved_problems, worked_examples
from moe_cap.precision import stored_bytes
from moe_cap.result import METRICS_VERSION, AccuracyRecord, Load, ModelRecord, Result, result_id
from moe_cap.settings import CHECKOUT, Settings
from moe_cap.submission import Submission

log = logging.getLogger("moe_cap")

ACCURACY_BATCH = 16
"""Requests that the accuracy harness gives the engine at once."""
BYTES_TOLERANCE = 0.01
"""How far the accounting's weights may be from the bytes that the engine holds before the result carries a warning."""


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation, and everything that it needs from outside.

    Attributes:
        run_uuid: identity of this run; the result's id follows from it and from the submission.
        output: folder for the engine's log.
        settings: where this machine keeps its probe and local problems, its operator's figures, its read-only token.
        environ: variables of this process, for the record.
        now: when the run began.
    """

    submission: Submission
    run_uuid: str
    output: Path
    settings: Settings
    environ: Mapping[str, str]
    now: datetime
    progress: Progress


def evaluate(job: Job) -> Result:
    """Measure one system.

    Raises:
        InvalidInputError: the submission cannot be measured by anybody (no such model, task, engine, family).
        MeasurementError: it could not be measured this time.
    """
    asked = job.submission
    job.progress.plan(_stage_weights(asked))
    job.progress.enter("looking at the model")
    busy = busy_share()
    own = read_own_figures(job.settings.machine) if job.settings.machine else None
    files = find_model(asked, job.settings.model_token)
    architecture = parse_config(files.config)
    engine = load_engine(asked.engine)
    spec = engine.launch_spec(files, asked.precision)
    job.progress.enter("reading idle power")
    meter = open_power_meter()
    idle_w = meter.idle_w()
    job.progress.enter("loading")
    session = engine.start(spec, job.output / "engine.log")
    try:
        job.progress.enter("probing the machine")
        machine = _machine(job, session, own)
        passages = _passages(job)
        levels = [_measure_level(job, session, architecture, passages, level, meter) for level in asked.concurrency]
        accuracy = [_accuracy(job, session, task) for task in asked.tasks]
        record, weights_bytes = session.describe(), session.weights_bytes()
        storage = session.storage(architecture)
    finally:
        session.stop()
    job.progress.enter("writing")
    peaks = machine.peaks(storage.compute_dtype)
    how = engine.probe().routing
    system = System(architecture, storage, machine, peaks, how, idle_w, meter.reason)
    points = tuple(build_point(level, system) for level in levels)
    model = _model_record(files, architecture, weights_bytes)
    return Result(
        schema_version=1,
        metrics_version=METRICS_VERSION,
        id=result_id(asked.id, job.run_uuid),
        kind="measured",
        created_at=job.now,
        submission=asked,
        run_uuid=job.run_uuid,
        citation=None,
        model=model,
        engine=record,
        precision=asked.precision,
        hardware=system.machine.record(system.peaks.compute_dtype),
        points=points,
        accuracy=tuple(accuracy),
        environment={**describe_environment(CHECKOUT, job.environ), "accuracy_batch_size": ACCURACY_BATCH},
        reproduce=reproduce_command(asked),
        assumptions=assumptions(),
        warnings=_warnings(system, weights_bytes, busy),
    )


def _stage_weights(asked: Submission) -> dict[str, float]:
    """Rough seconds of each stage of a small model; only their ratios matter."""
    weights = {
        "looking at the model": 1.0,
        "reading idle power": 1.0,
        "loading": 3.0,
        "probing the machine": 3.0,
        "writing": 1.0,
    }
    for level in asked.concurrency:
        number = requests_for(level, asked.num_requests) // level
        batch_s = (asked.input_tokens * level / 2000 + asked.output_tokens * (1 + level / 16)) / 100
        weights[f"warm-up batch {level}"] = batch_s
        weights |= {_timing_stage(asked, level, repeat): number * batch_s for repeat in range(asked.repeats)}
        weights[f"routing batch {level}"] = 1.5 * number * batch_s
    return weights | {f"accuracy {task}": 0.03 * (asked.accuracy_limit or 300) for task in asked.tasks}


def _timing_stage(asked: Submission, level: int, repeat: int) -> str:
    return f"timing batch {level} ({repeat + 1}/{asked.repeats})"


def _machine(job: Job, session: Session, own: OwnFigures | None) -> MeasuredMachine:
    device = str(session.describe().arguments.get("device", "cpu"))
    probe = probe_machine(device, job.settings.home)
    return identify_machine(detect_machine(), probe, asked=job.submission.hardware, own=own)


def _measure_level(
    job: Job,
    session: Session,
    architecture: Architecture,
    passages: Passages,
    concurrency: int,
    meter: PowerMeter,
) -> LevelResult:
    asked = job.submission
    shape = {"input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens, "seed": asked.seed}
    number = requests_for(concurrency, asked.num_requests)
    job.progress.enter(f"warm-up batch {concurrency}")
    warm = build_requests(passages, session.tokenizer, name=f"warm-{concurrency}", number=concurrency, **shape)
    session.warm_up(warm, concurrency)
    requests = build_requests(passages, session.tokenizer, name=f"level-{concurrency}", number=number, **shape)
    passes = []
    for repeat in range(asked.repeats):
        job.progress.enter(_timing_stage(asked, concurrency, repeat))
        passes.append(time_level(session, requests, concurrency, meter))
    job.progress.enter(f"routing batch {concurrency}")
    traces = trace_repeats(session, requests, passes, concurrency, architecture, job.progress.within)
    load = Load(
        kind="closed_loop",
        concurrency=concurrency,
        batch_size=max((len(step.members) for step in passes[0].run.steps), default=None),
        input_tokens=asked.input_tokens,
        output_tokens=asked.output_tokens,
        num_requests=number,
        prompts=f"{passages.description}, cut to {asked.input_tokens} tokens, seed {asked.seed}",
    )
    return LevelResult(load, requests, tuple(passes), tuple(traces))


def _passages(job: Job) -> Passages:
    tasks = job.submission.tasks
    return solved_problems(tasks[0], _local_problems(job, tasks[0])) if tasks else worked_examples()


def _local_problems(job: Job, task: str) -> Path | None:
    """Problems that lie in `home/problems/<task>` are taken from there instead of the Hub."""
    folder = job.settings.home / "problems" / task
    return folder if folder.is_dir() else None


def _accuracy(job: Job, session: Session, task: str) -> AccuracyRecord:
    job.progress.enter(f"accuracy {task}")
    record = measure_accuracy(
        session,
        task,
        limit=job.submission.accuracy_limit,
        batch_size=ACCURACY_BATCH,
        data_dir=_local_problems(job, task),
        report=job.progress.within,
    )
    log.info("%s: %s %.4f over %s problems", task, record.metric, record.value, record.num_samples)
    return record


def _model_record(files: ModelFiles, architecture: Architecture, weights_bytes: float) -> ModelRecord:
    parameters = architecture.parameters()
    parts = parameters.as_dict()
    return ModelRecord(
        name=files.name,
        revision=files.revision,
        model_type=architecture.model_type,
        parameters_total=parameters.total,
        parameters_active=parameters.active,
        parameters_by_part={name: number for name, number in parts.items() if name not in {"total", "active"}},
        weights_bytes=weights_bytes,
    )


def _warnings(system: System, weights_bytes: float, busy: float) -> tuple[str, ...]:
    found = []
    counted = stored_bytes(system.architecture, system.storage)
    if abs(counted - weights_bytes) > BYTES_TOLERANCE * weights_bytes:
        found.append(
            f"the accounting counts {counted:.0f} bytes of weights, the engine holds {weights_bytes:.0f}: "
            "bandwidth figures are off by as much"
        )
    if busy > QUIET_SHARE:
        found.append(
            f"the machine was busy before the run began (load average {busy:.1f} per processor): times are long"
        )
    return tuple(found)


def reproduce_command(asked: Submission) -> str:
    """Two commands that repeat a run anywhere."""
    body = json.dumps(asked.model_dump(mode="json", exclude={"submitter"}), separators=(",", ":"))
    return f"echo {shlex.quote(body)} > request.json && moe-cap evaluate request.json --output out"
