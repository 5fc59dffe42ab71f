"""From a document and the files of tools to one reported result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from moe_cap.errors import ResultError
from moe_cap.hardware import find_device
from moe_cap.quantity import Quantity
from moe_cap.reported import NOT_STATED, PUBLISHED_AS
from moe_cap.reported.document import RATIOS, GivenPoint, Missing, Report, place_of
from moe_cap.reported.reading import Reading, Stated, reported, unstated
from moe_cap.result import EngineRecord, HardwareRecord, Load, ModelRecord, Point, Result, result_id

HEADLINE = ("output_tokens_per_s", "ttft_s_p50", "tpot_s_p50", "decode_s_mbu", "power_w", "purchase_usd")
"""What every reader looks for: null with the reason where the source does not state it."""
NO_PASSES = "the source states no utilisation, and nothing is computed from a source's figures"


def build_result(report: Report, readings: Sequence[Reading]) -> Result:
    """One result of kind `reported`: the document's points, then those of the files.

    Its id hashes the citation and the content, so that the same import is the same result.

    Raises:
        ResultError: there are no points, the model or the number of devices is named nowhere, files and document are
            of different systems, or a score that a point refers to is missing.
        UnknownHardwareError: the catalogue does not have the device.
    """
    stated = [reading.stated for reading in readings]
    scores = (*report.accuracy, *(reading.accuracy for reading in readings if reading.accuracy is not None))
    points = (*(_given(report, point) for point in report.points), *(_read(report, each) for each in readings))
    if not points:
        raise ResultError("no points: the document has none, and no file of a tool was given")
    scores = tuple(dict.fromkeys(scores))
    tasks = {score.task for score in scores}
    if len(tasks) < len(scores):
        raise ResultError("two scores of one task: import them apart, a result holds one system's score")
    if lost := {point.accuracy_task for point in points if point.accuracy_task} - tasks:
        raise ResultError(f"accuracy_task {', '.join(sorted(lost))}: `accuracy` has no such task")
    try:
        draft = Result(
            schema_version=1, metrics_version=PUBLISHED_AS, id="0" * 24, kind="reported", created_at=report.created_at,
            submission=None, run_uuid=None, citation=report.citation, model=_model(report, stated),
            engine=_engine(report, stated), precision=_precision(report, stated), hardware=_hardware(report, stated),
            points=points, accuracy=scores, environment={}, reproduce=None,
            warnings=(*report.notes, *_differences(report, stated)),
        )  # fmt: skip
    except ValidationError as error:
        raise place_of(error) from error
    content = hashlib.sha256(draft.to_json()).hexdigest()
    return draft.model_copy(update={"id": result_id(report.citation.text, content)})


def _given(report: Report, point: GivenPoint) -> Point:
    quantities = {
        name: unstated(name, figure.reason) if isinstance(figure, Missing) else reported(name, figure)
        for name, figure in point.quantities.items()
    }
    return _point(report, point.load, quantities, task=point.accuracy_task)


def _read(report: Report, reading: Reading) -> Point:
    task = reading.accuracy.task if reading.accuracy is not None else None
    return _point(report, reading.load, reading.quantities, task=task, invalid=reading.invalid)


def _point(
    report: Report,
    load: Mapping[str, Any],
    quantities: Mapping[str, Quantity],
    *,
    task: str | None,
    invalid: tuple[str, ...] = (),
) -> Point:
    told = {name: value for name, value in load.items() if value is not None}
    for name, value in report.load.items():
        if name in told and told[name] != value:
            raise ResultError(f"load.{name} is {value} for all points, and {told[name]} in one of them")
    try:
        whole = Load.model_validate({**report.load, **told})
    except ValidationError as error:
        raise ResultError(f"load.{place_of(error)}") from error
    left = {name: _silence(report, name) for name in HEADLINE if name not in quantities}
    return Point(
        load=whole, quantities={**quantities, **left}, routing_source=None, accuracy_task=task, invalid=invalid
    )


def _silence(report: Report, name: str) -> Quantity:
    return unstated(name, NO_PASSES if name in RATIOS else f"{report.citation.text} does not state it")


def _one(what: str, given: Any, told: Sequence[Any]) -> Any:
    """What the document says, else what all files that say it say; None where all are silent."""
    said = dict.fromkeys(value for value in told if value is not None)
    if given is not None:
        return given
    if len(said) > 1:
        raise ResultError(f"{what}: the files name {', '.join(map(str, said))}; import one system at a time")
    return next(iter(said), None)


def _differences(report: Report, stated: Sequence[Stated]) -> Iterator[str]:
    """Where a file names the system otherwise; a name may be an alias, a number of devices may not."""
    said = {
        "model": report.model.name,
        "engine": report.engine.name,
        "engine_version": report.engine.version,
        "precision": report.precision,
        "num_devices": report.hardware.num_devices,
    }
    for name, ours in said.items():
        theirs = dict.fromkeys(getattr(each, name) for each in stated)
        for other in theirs:
            if ours is None or other is None or str(other).casefold() == str(ours).casefold():
                continue
            difference = f"{name}: the report says {ours}, a file says {other}"
            if name == "num_devices":
                raise ResultError(difference)
            yield difference


def _model(report: Report, stated: Sequence[Stated]) -> ModelRecord:
    given = report.model
    name = _one("model.name", given.name, [each.model for each in stated])
    if name is None:
        raise ResultError("model.name: neither the document nor a file names the model")
    reason = None if given.revision else f"{report.citation.text} names the model without a revision"
    return ModelRecord(**given.model_dump() | {"name": name, "revision_reason": reason})


def _engine(report: Report, stated: Sequence[Stated]) -> EngineRecord:
    given = report.engine
    name = _one("engine.name", given.name, [each.engine for each in stated])
    same = [each for each in stated if each.engine is None or each.engine.casefold() == str(name).casefold()]
    version = _one("engine.version", given.version, [each.engine_version for each in same])
    return EngineRecord(
        **given.model_dump()
        | {
            "name": name,
            "name_reason": None if name else f"{report.citation.text} does not state the engine",
            "version": version,
            "weights_dtype": report.precision,
        }
    )


def _precision(report: Report, stated: Sequence[Stated]) -> str:
    return _one("precision", report.precision, [each.precision for each in stated]) or NOT_STATED


def _hardware(report: Report, stated: Sequence[Stated]) -> HardwareRecord:
    given = report.hardware
    device = find_device(given.device)
    count = _one("hardware.num_devices", given.num_devices, [each.num_devices for each in stated])
    if count is None:
        raise ResultError("hardware.num_devices: neither the document nor a file says how many devices there were")
    name = _one("hardware.device_name", given.device_name, [each.device_name for each in stated]) or device.name
    return HardwareRecord(**given.model_dump() | {"device_name": name, "num_devices": count})
