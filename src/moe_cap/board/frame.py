"""Results as one table: a row per (result, point), canonical names, SI units, ratios 0..1, nothing rounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from moe_cap.board.columns import REPEATED_QUANTITIES, interval_field
from moe_cap.errors import InvalidInputError
from moe_cap.metrics.cap import Classification, classify
from moe_cap.offerings import ENGINE_TITLES
from moe_cap.quantity import QUANTITIES
from moe_cap.result import AccuracyRecord, Point, Result

TEXT = (
    "row", "result", "kind", "invalid", "model", "model_type", "revision", "engine", "engine_version", "precision",
    "quantisation", "device", "device_name", "load_kind", "dataset", "task", "accuracy_metric", "routing_source",
    "citation_text", "citation_url", "citation_place", "created_at", "cap_class", "cap_class_reason", "warnings",
)  # fmt: skip
MAPPINGS = ("missing", "sources")
COUNTS = (
    "point", "num_devices", "tensor_parallel", "concurrency", "batch_size", "input_tokens", "output_tokens",
    "num_requests", "num_samples", "parameters_total", "parameters_active",
)  # fmt: skip
INTERVALS = {interval_field(name): name for name in REPEATED_QUANTITIES}
NUMBERS = (
    "request_rate_per_s", "weights_bytes", "accuracy", "accuracy_stderr", "no_answer_rate", *QUANTITIES, *INTERVALS,
)  # fmt: skip
FLAGS = ("valid", "random_weights")


def row_id(result_id: str, point: int) -> str:
    """Name of one row of the board, as it stands in links."""
    return f"{result_id}-{point}"


def frame(results: Iterable[Result]) -> pd.DataFrame:
    """Return the canonical table: text, nullable counts, floats (null where unknown) and flags, in a fixed order.

    `missing` and `sources` hold, per row, a mapping from column to the reason why it is null, or to how it was come by.
    """
    rows = [_row(result, index) for result in results for index in range(len(result.points))]
    table = pd.DataFrame(rows, columns=[*TEXT, *MAPPINGS, *COUNTS, *NUMBERS, *FLAGS])
    kinds = (
        dict.fromkeys(TEXT, "str")
        | dict.fromkeys(COUNTS, "Int64")
        | dict.fromkeys(NUMBERS, "Float64")
        | dict.fromkeys(FLAGS, "bool")
    )
    return table.astype(kinds)


def accuracy_of(result: Result, point: Point) -> AccuracyRecord | None:
    """The score that belongs to a point: that of its own task, or else the result's first."""
    if point.accuracy_task is None:
        return result.accuracy[0] if result.accuracy else None
    return next((score for score in result.accuracy if score.task == point.accuracy_task), None)


def missing_reasons(result: Result, point: Point) -> dict[str, str]:
    """Why a column of this row is null, for every column that has a reason."""
    reasons = {name: quantity.reason for name, quantity in point.quantities.items() if quantity.reason is not None}
    for field, name in INTERVALS.items():
        if _interval(point, name) is None and name in point.quantities and name not in reasons:
            reasons[field] = (
                "the source states none" if result.kind == "reported" else "there is no second repeat of it"
            )
    if result.engine.name is None and result.engine.name_reason is not None:
        reasons["engine"] = result.engine.name_reason
    if result.model.revision is None and result.model.revision_reason is not None:
        reasons["revision"] = result.model.revision_reason
    if result.model.random_weights:
        reasons["accuracy"] = "random weights: the model knows nothing, only its speed was measured"
    elif accuracy_of(result, point) is None:
        reported = result.kind == "reported"
        reasons["accuracy"] = "the source states none" if reported else "no accuracy task was asked for"
    standing = classification(result, point)
    if standing.cap_class is None:
        reasons["cap_class"] = standing.reason
    return reasons


def classification(result: Result, point: Point) -> Classification:
    """PA, PC or CA on the paper's basis of cost; a row without a class says why."""
    if point.invalid:
        return Classification(None, f"invalid: {'; '.join(point.invalid)}")
    score = accuracy_of(result, point)
    values = {name: quantity.value for name, quantity in point.quantities.items()}
    try:
        return classify(
            cost=values.get("purchase_usd"),
            accuracy=score.value if score else None,
            output_tokens_per_s=values.get("output_tokens_per_s"),
            task=score.task if score else None,
        )
    except InvalidInputError as error:
        return Classification(None, f"no class: {error}")


def _row(result: Result, index: int) -> dict[str, Any]:
    point = result.points[index]
    standing = classification(result, point)
    return {
        "row": row_id(result.id, index),
        "result": result.id,
        "point": index,
        "kind": result.kind,
        "valid": not point.invalid,
        "invalid": "; ".join(point.invalid) or None,
        "created_at": result.created_at.isoformat(),
        "cap_class": standing.cap_class and standing.cap_class.value,
        "cap_class_reason": standing.reason,
        "warnings": "; ".join(result.warnings) or None,
        "missing": missing_reasons(result, point),
        "sources": {name: quantity.source for name, quantity in point.quantities.items() if quantity.value is not None},
        **_system(result),
        **_load(point),
        **_score(accuracy_of(result, point)),
        **{name: quantity.value for name, quantity in point.quantities.items()},
        **{field: _interval(point, name) for field, name in INTERVALS.items()},
    }


def _interval(point: Point, name: str) -> float | None:
    quantity = point.quantities.get(name)
    return None if quantity is None else quantity.interval_95


def _system(result: Result) -> dict[str, Any]:
    citation = result.citation
    return {
        "model": result.model.name,
        "model_type": result.model.model_type,
        "revision": result.model.revision,
        "parameters_total": result.model.parameters_total,
        "parameters_active": result.model.parameters_active,
        "weights_bytes": result.model.weights_bytes,
        "random_weights": result.model.random_weights,
        "engine": _engine(result.engine.name),
        "engine_version": result.engine.version,
        "precision": result.precision,
        "quantisation": result.engine.quantisation,
        "tensor_parallel": None if result.kind == "reported" else result.engine.tensor_parallel,
        "device": result.hardware.device,
        "device_name": result.hardware.device_name,
        "num_devices": result.hardware.num_devices,
        "citation_text": citation and citation.text,
        "citation_url": citation and citation.url,
        "citation_place": citation and citation.place,
    }


def _engine(name: str | None) -> str | None:
    """One name for one engine, whoever wrote the record."""
    return name and ENGINE_TITLES.get(name.casefold(), name)


def _load(point: Point) -> dict[str, Any]:
    load = point.load
    return {
        "load_kind": load.kind,
        "concurrency": load.concurrency,
        "request_rate_per_s": load.request_rate_per_s,
        "batch_size": load.batch_size,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "num_requests": load.num_requests,
        "dataset": load.dataset,
        "routing_source": point.routing_source and str(point.routing_source),
    }


def _score(score: AccuracyRecord | None) -> dict[str, Any]:
    if score is None:
        return {}
    return {
        "task": score.task,
        "accuracy_metric": score.metric,
        "accuracy": score.value,
        "accuracy_stderr": score.stderr,
        "num_samples": score.num_samples,
        "no_answer_rate": score.no_answer_rate,
    }
