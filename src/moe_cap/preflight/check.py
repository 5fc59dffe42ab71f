"""Everything that can be found wrong with a submission, field by field, and what to expect of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import InvalidInputError, SubmissionError, UnknownHardwareError
from moe_cap.hardware import Device, Machine, detect_machine, find_device
from moe_cap.hardware.detect import CPU_PROBED
from moe_cap.offerings import ENGINES, TASKS, listed_engines
from moe_cap.precision import StoragePlan, parse_quantization, read_quantization, refuse_conversion, storage_of
from moe_cap.preflight.duration import estimate_s, read_peaks
from moe_cap.preflight.memory import Room, need_of, room_for
from moe_cap.preflight.model import DEADLINE_S, FoundModel, Look, find_folder, find_on_hub, within
from moe_cap.settings import Settings
from moe_cap.submission import Submission

GB = 1e9


class Problem(NamedTuple):
    """What is wrong with one field of the form."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Preflight:
    """The answer; a submission may be stored when `problems` is empty.

    Attributes:
        problems: what stands in the way, in the order of the form.
        warnings: what does not, and should be known.
        model_type: the family; None when the model was not found or not understood.
        weights_bytes: in the precision that was asked for.
        kv_bytes: cache of the largest load.
        memory_bytes: of the device that would serve it; None when it is not known.
        fits: whether weights, cache and overhead fit into it; None when one of them is not known.
        eta_s: about how long, seconds; None when it cannot be told.
        eta_basis: what the time rests on.
    """

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...] = ()
    model_type: str | None = None
    parameters_total: int | None = None
    parameters_active: int | None = None
    weights_bytes: int | None = None
    kv_bytes: float | None = None
    memory_bytes: float | None = None
    fits: bool | None = None
    eta_s: float | None = None
    eta_basis: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    """What has been found so far."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def close(self, known: Preflight) -> Preflight:
        """The answer, with the problems in the order of the form."""
        order = list(Submission.model_fields)
        problems = sorted(self.problems, key=lambda problem: order.index(problem.field))
        return replace(known, problems=tuple(problems), warnings=tuple(self.warnings))


def check(
    submission: Submission,
    settings: Settings,
    *,
    machine: Machine | None = None,
    on_hub: Look | None = None,
    deadline_s: float = DEADLINE_S,
) -> Preflight:
    """Look at a submission without loading anything; answers within `deadline_s` and never raises for bad input.

    Args:
        submission: what was asked, already valid in form.
        settings: where this machine keeps its probe, and whether folders may be named.
        machine: what the memory is compared with; detected when not given.
        on_hub: asks the Hub for a model; the real one if not given.
        deadline_s: longest wait for the Hub, seconds.
    """
    findings = _Findings()
    findings.problems += _engine_problems(submission)
    findings.problems += _hardware_problems(submission)
    ask = on_hub or partial(find_on_hub, token=settings.model_token)
    model = _find_model(submission, settings, ask, deadline_s, findings)
    known = Preflight(())
    if model is not None:
        known = _look_inside(submission, settings, model, machine or detect_machine(), findings)
    return findings.close(known)


def _engine_problems(submission: Submission) -> Iterator[Problem]:
    offer = ENGINES.get(submission.engine)
    if offer is None or not offer.listed:
        names = ", ".join(each.name for each in listed_engines())
        yield Problem("engine", f"there is no engine {submission.engine!r}; there are: {names}")
    elif submission.precision not in offer.precisions:
        names = ", ".join(offer.precisions)
        yield Problem("precision", f"{offer.title} cannot be asked for {submission.precision!r}; it offers {names}")
    for name in submission.tasks:
        if name not in TASKS:
            yield Problem("tasks", f"there is no task {name!r}; there are: {', '.join(TASKS)}")


def _hardware_problems(submission: Submission) -> Iterator[Problem]:
    if submission.hardware is None or submission.hardware == CPU_PROBED:
        return
    try:
        find_device(submission.hardware)
    except UnknownHardwareError as error:
        yield Problem("hardware", str(error))


def _find_model(
    submission: Submission, settings: Settings, on_hub: Look, deadline_s: float, findings: _Findings
) -> FoundModel | None:
    if submission.is_folder and not settings.allow_folders:
        findings.problems.append(Problem("model", "folders cannot be named here: give a Hub id"))
        return None
    if submission.is_folder and submission.revision is not None:
        findings.problems.append(Problem("revision", "a folder has no revisions: leave it empty"))
    try:
        found = find_folder(submission) if submission.is_folder else within(deadline_s, on_hub, submission)
    except SubmissionError as error:
        findings.problems.append(Problem(error.field, str(error)))
        return None
    except InvalidInputError as error:
        findings.problems.append(Problem("model", str(error)))
        return None
    if found.warning:
        findings.warnings.append(found.warning)
    return found


def _look_inside(
    submission: Submission, settings: Settings, model: FoundModel, machine: Machine, findings: _Findings
) -> Preflight:
    findings.problems += _length_problems(submission, model.config)
    try:
        arch = parse_config(model.config)
    except InvalidInputError as error:
        findings.problems.append(Problem("model", str(error)))
        return Preflight(())
    parameters = arch.parameters()
    known = Preflight(
        (), model_type=arch.model_type, parameters_total=parameters.total, parameters_active=parameters.active
    )
    try:
        storage = _storage(submission, model, arch)
    except InvalidInputError as error:
        if not any(problem.field == "precision" for problem in findings.problems):
            findings.problems.append(Problem("precision", str(error)))
        return known
    known = _judge_memory(submission, settings, model, (arch, storage), machine, findings, known)
    return _judge_time(submission, settings, model, (arch, storage), known)


def _storage(submission: Submission, model: FoundModel, arch: Architecture) -> StoragePlan:
    """As the checkpoint is stored where it is quantised, else as the precision's name says.

    Raises:
        InvalidInputError: no such precision, a scheme that is not understood, or another one than was asked for.
    """
    stored = parse_quantization(model.config) if model.folder is None else read_quantization(model.folder, model.config)
    offer = ENGINES.get(submission.engine)
    refuse_conversion(stored, submission.precision, submission.model, offer.as_stored if offer else ())
    return stored if stored.rules else storage_of(arch, submission.precision)


def _length_problems(submission: Submission, config: Mapping[str, Any]) -> Iterator[Problem]:
    text = config.get("text_config")
    inner = text if isinstance(text, Mapping) else {}
    limit = config.get("max_position_embeddings", inner.get("max_position_embeddings"))
    asked = submission.input_tokens + submission.output_tokens
    if isinstance(limit, int) and asked > limit:
        message = f"{submission.input_tokens} in and {submission.output_tokens} out are {asked} tokens"
        yield Problem("input_tokens", f"{message}; the model has positions for {limit}")


def _served_elsewhere(submission: Submission, settings: Settings) -> bool:
    """Whether any worker of a shared queue may take it, so that this machine says nothing about it."""
    return submission.hardware is None and settings.queue.startswith("hub://")


def _judge_memory(
    submission: Submission,
    settings: Settings,
    model: FoundModel,
    stored: tuple[Architecture, StoragePlan],
    machine: Machine,
    findings: _Findings,
    known: Preflight,
) -> Preflight:
    need = need_of(submission, *stored, model.weight_file_bytes)
    room = Room(None, None, "a worker") if _served_elsewhere(submission, settings) else room_for(submission, machine)
    fits = None if room.total_bytes is None else need.total_bytes <= room.total_bytes
    sizes = f"it needs about {need.total_bytes / GB:.1f} GB ({need.weights_bytes / GB:.1f} of them weights)"
    has = f"{room.where} has {(room.total_bytes or 0) / GB:.1f} GB"
    if fits is False and _offloads(submission):
        findings.warnings.append(f"{sizes}, {has}: the rest lies outside that memory and is brought in at every step.")
    elif fits is False:
        findings.problems.append(Problem("model", f"{sizes}, {has}: take a smaller precision, load or model"))
    elif room.free_bytes is not None and need.total_bytes > room.free_bytes:
        findings.warnings.append(f"{sizes}; now only {room.free_bytes / GB:.1f} GB are free on {room.where}.")
    return replace(
        known, weights_bytes=need.weights_bytes, kv_bytes=need.kv_bytes, memory_bytes=room.total_bytes, fits=fits
    )


def _offloads(submission: Submission) -> bool:
    offer = ENGINES.get(submission.engine)
    return offer is not None and offer.offloads


def _judge_time(
    submission: Submission,
    settings: Settings,
    model: FoundModel,
    stored: tuple[Architecture, StoragePlan],
    known: Preflight,
) -> Preflight:
    if _served_elsewhere(submission, settings):
        return replace(known, eta_basis="not known: it depends on the worker that takes it")
    arch, storage = stored
    peaks = read_peaks(settings.home, storage.compute_dtype, _device_asked_for(submission))
    return replace(
        known,
        eta_s=estimate_s(submission, arch, storage, model.weight_file_bytes, peaks),
        eta_basis=f"estimated from {peaks.source}, half of which an engine is assumed to reach",
    )


def _device_asked_for(submission: Submission) -> Device | None:
    if submission.hardware is None or submission.hardware == CPU_PROBED:
        return None
    try:
        return find_device(submission.hardware)
    except UnknownHardwareError:
        return None
