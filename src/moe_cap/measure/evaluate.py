"""The walk from a submission to its result; a straight line.

Model -> engine -> probe -> for each level: warm-up, timing pass -> accuracy through the same engine -> for each level:
routing pass -> metrics -> result. Nothing is published here, and nothing half-measured comes back: every way to fail is
a named error.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.expert_trace import trace_name, write_trace
from moe_cap.hardware import detect_machine
from moe_cap.hardware.own_figures import OwnFigures, read_own_figures
from moe_cap.measure.accuracy import measure_accuracy
from moe_cap.measure.costs import assumptions
from moe_cap.measure.doubts import doubts_of_the_levels, doubts_of_the_run, doubts_of_the_weights
from moe_cap.measure.engines.base import Engine, LaunchSpec, Session
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.environment import describe_environment
from moe_cap.measure.levels import Carrier, levels_of, stage_weights
from moe_cap.measure.machine import MeasuredMachine, identify_machine
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.measure.placement import (
    device_of,
    found_behind,
    gpus_of,
    layout_of,
    why_gpus_unknown,
    why_no_offload_bytes,
)
from moe_cap.measure.points import LevelResult, System, build_point, expert_trace
from moe_cap.measure.power import PowerMeter, open_power_meter
from moe_cap.measure.probe import busy_share, probe_machine, uuid_of
from moe_cap.measure.progress import Progress
from moe_cap.measure.prompt_cache import NO_OPENING, Opening
from moe_cap.measure.prompts import Passages, Prompts, solved_problems, worked_examples
from moe_cap.measure.publishable import publishable
from moe_cap.measure.request_log import write_requests
from moe_cap.precision import StoragePlan, read_quantization, refuse_conversion
from moe_cap.result import METRICS_VERSION, AccuracyRecord, EngineRecord, ModelRecord, Result, result_id
from moe_cap.settings import CHECKOUT, Settings
from moe_cap.submission import Submission

log = logging.getLogger("moe_cap")

NO_COUNTERS = "the server runs on another machine, whose counters cannot be read from here"
ACCURACY_BATCH = 16
"""Requests that the accuracy harness gives the engine at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation, and everything that it needs from outside.

    Attributes:
        run_uuid: identity of this run; the result's id follows from it and from the submission.
        output: folder for the engine's log, requests, routing traces and the samples of the accuracy tasks.
        settings: where this machine keeps its probe and local problems, its operator's figures, its read-only token.
        environ: variables of this process, for the record.
        now: when the run began.
        reproduce: the command that repeats the run; None for that of the submission alone.
        prompts_from: task whose solved problems the prompts are made of; None for the submission's first.
        warnings: what a reader of the result must know, known before the run.
    """

    submission: Submission
    run_uuid: str
    output: Path
    settings: Settings
    environ: Mapping[str, str]
    now: datetime
    progress: Progress
    reproduce: str | None = None
    prompts_from: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """The system of a run, found and not started.

    Attributes:
        arguments: what a person gave to the engine's command, verbatim; part of `spec` already, kept for the record.
        num_devices: that it runs on, where somebody says so; None takes what the engine tells.
        elsewhere: the machine that it runs on, where that is another one than this: its power cannot be read from here.
        opening: of the prompts, where a cache that is not ours might know them.
        ours: the engine is started here, so nothing decides how it runs but our arguments and the given ones.
    """

    files: ModelFiles
    engine: Engine
    spec: LaunchSpec
    arguments: tuple[str, ...] = ()
    num_devices: int | None = None
    elsewhere: MeasuredMachine | None = None
    opening: Opening = NO_OPENING
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """What a session gave until it was stopped."""

    machine: MeasuredMachine
    levels: tuple[LevelResult, ...]
    accuracy: tuple[AccuracyRecord, ...]
    engine: EngineRecord
    weights_bytes: float | None
    storage: StoragePlan


def evaluate(job: Job) -> Result:
    """Measure the system of a submission.

    Raises:
        InvalidInputError: the submission cannot be measured by anybody (no such model, task, engine, family).
        MeasurementError: it could not be measured this time.
    """
    return measure(job, find_subject)


def find_subject(job: Job) -> Subject:
    """The model, from the Hub if need be, and the engine that the submission names."""
    files = find_model(job.submission, job.settings.model_token)
    engine = load_engine(job.submission.engine)
    return Subject(files, engine, engine.launch_spec(files, job.submission.precision))


def measure(job: Job, find: Callable[[Job], Subject]) -> Result:
    """Measure a system, whoever found it; raises as `evaluate` does."""
    asked = job.submission
    job.progress.plan(stage_weights(asked))
    job.progress.enter("looking at the model")
    busy = busy_share()
    own = read_own_figures(job.settings.machine) if job.settings.machine else None
    subject = find(job)
    refuse_conversion(
        read_quantization(subject.files.folder, subject.files.config), asked.precision, subject.files.name
    )
    architecture = parse_config(subject.files.config)
    job.progress.enter("reading idle power")
    meter = open_power_meter() if subject.elsewhere is None else PowerMeter(None, NO_COUNTERS)
    idle = meter.idle()
    job.progress.enter("loading")
    session = subject.engine.start(subject.spec, job.output / "engine.log")
    try:
        found = _carry(job, subject, session, architecture, meter, own)
    finally:
        session.stop()
    job.progress.enter("writing")
    peaks = found.machine.peaks(found.storage.compute_dtype)
    how = subject.engine.probe().routing
    no_power = _meter_of(subject, found.machine, meter).reason
    idle_w = idle.only(found.machine.gpus).watts if idle is not None and no_power is None else None
    engine = _published(found.engine, subject.arguments)
    system = System(
        architecture, found.storage, found.machine, peaks, how, idle_w, no_power, layout_of(found.engine),
        found.weights_bytes, why_no_offload_bytes(engine, ours=subject.ours),
    )  # fmt: skip
    environment = describe_environment(CHECKOUT, job.environ)
    return Result(
        schema_version=1,
        metrics_version=METRICS_VERSION,
        id=result_id(asked.id, job.run_uuid),
        kind="measured",
        created_at=job.now,
        submission=asked,
        run_uuid=job.run_uuid,
        citation=None,
        model=_model_record(subject.files, architecture, found.weights_bytes),
        engine=engine,
        precision=asked.precision,
        hardware=found.machine.record(peaks.compute_dtype),
        points=tuple(build_point(level, system) for level in found.levels),
        accuracy=found.accuracy,
        environment={**environment, "accuracy_batch_size": ACCURACY_BATCH},
        reproduce=job.reproduce or reproduce_command(asked, subject.files.revision),
        assumptions=assumptions(),
        warnings=(
            *job.warnings,
            *doubts_of_the_run(system, busy, environment),
            *doubts_of_the_weights(subject.files, found.engine),
            *doubts_of_the_levels(subject.files, found.levels),
        ),
    )


def _carry(
    job: Job, subject: Subject, session: Session, architecture: Architecture, meter: PowerMeter, own: OwnFigures | None
) -> Measured:
    asked = job.submission
    job.progress.enter("probing the machine")
    machine = subject.elsewhere or _machine(job, subject, session, own)
    prompts = Prompts(asked, _passages(job), session.tokenizer, subject.opening)
    carrier = Carrier(asked, session, architecture, prompts, _meter_of(subject, machine, meter), job.progress)
    timed = [carrier.time(level) for level in levels_of(asked)]
    accuracy = tuple(_accuracy(job, session, task) for task in asked.tasks)
    levels = tuple(map(carrier.trace, timed))
    for level in levels:
        write_requests(level, job.output)
        if trace := expert_trace(level, architecture):
            write_trace(trace, job.output / trace_name(level.load))
    storage = session.storage(architecture)
    return Measured(machine, levels, accuracy, session.describe(), session.weights_bytes(), storage)


def _machine(job: Job, subject: Subject, session: Session, own: OwnFigures | None) -> MeasuredMachine:
    record, machine = session.describe(), detect_machine()
    asked = job.submission.hardware
    device = device_of(record, machine, asked)
    found = found_behind(device, uuid_of(device), machine)
    number = subject.num_devices or layout_of(record).num_devices
    probe = probe_machine(device, job.settings.home)
    known = identify_machine(machine, found, probe, asked=asked, own=own, num_devices=number)
    return replace(known, gpus=gpus_of(record, device, number))


def _meter_of(subject: Subject, machine: MeasuredMachine, meter: PowerMeter) -> PowerMeter:
    """The counters of the run's own devices, where it is known which they are."""
    reason = why_gpus_unknown(machine.gpus, machine.machine, ours=subject.ours)
    return meter.only(machine.gpus) if reason is None else PowerMeter(None, reason)


def _published(record: EngineRecord, given: tuple[str, ...]) -> EngineRecord:
    """The record with the arguments that were given, and without what nobody else may see."""
    arguments: dict[str, JsonValue] = {**record.arguments, **({"given_arguments": list(given)} if given else {})}
    return record.model_copy(update={"arguments": publishable(arguments)})


def _passages(job: Job) -> Passages:
    source = job.prompts_from or next(iter(job.submission.tasks), None)
    return solved_problems(source, _local_problems(job, source)) if source else worked_examples()


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
        output=job.output,
        report=job.progress.within,
    )
    log.info("%s: %s %.4f over %s problems", task, record.metric, record.value, record.num_samples)
    return record


def _model_record(files: ModelFiles, architecture: Architecture, weights_bytes: float | None) -> ModelRecord:
    parameters = architecture.parameters()
    parts = parameters.as_dict()
    return ModelRecord(
        name=files.name,
        revision=files.revision or None,
        revision_reason=None if files.revision else "only the server holds the weights, and it does not say which",
        model_type=architecture.model_type,
        parameters_total=parameters.total,
        parameters_active=parameters.active,
        parameters_by_part={name: number for name, number in parts.items() if name not in {"total", "active"}},
        weights_bytes=weights_bytes,
        random_weights=files.random_weights,
    )


def reproduce_command(asked: Submission, revision: str) -> str:
    """Two commands that repeat a run anywhere, with the very weights of the Hub that were measured."""
    pinned = asked.model_copy(update={"revision": revision}) if revision and not asked.is_folder else asked
    body = json.dumps(pinned.model_dump(mode="json", exclude={"submitter"}), separators=(",", ":"))
    return f"printf '%s' {shlex.quote(body)} > request.json && moe-cap evaluate request.json --output out"
