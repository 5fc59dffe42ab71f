"""Results that others published, entered as records with their citation: one YAML file per source.

    python -m moe_cap.reported eval-results

writes them where the results store keeps its records.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from importlib import resources
from typing import Any

import yaml

from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.result import (
    AccuracyRecord,
    Citation,
    EngineRecord,
    HardwareRecord,
    Load,
    ModelRecord,
    Point,
    Result,
    result_id,
)

NOT_STATED = "not stated"
PUBLISHED_AS = 1
"""Metrics version of these records; the numbers are others', so a change of our formulas does not touch them."""
ACCURACY_METRIC = {"gsm8k": "exact_match", "arena_hard": "win_rate"}


def read_reported() -> list[Result]:
    """All reported results, in the order of their sources; the same records on every call."""
    sources = sorted(
        (entry for entry in resources.files(__package__).iterdir() if entry.name.endswith(".yaml")),
        key=lambda entry: entry.name,
    )
    return [result for entry in sources for result in parse_source(yaml.safe_load(entry.read_text(encoding="utf-8")))]


def parse_source(source: Mapping[str, Any]) -> Iterator[Result]:
    """Turn one source's tables into results; the id hashes the citation and the system's place in it."""
    for system in source["systems"]:
        yield _result(source, system)


def _result(source: Mapping[str, Any], system: Mapping[str, Any]) -> Result:
    place = f"Table {system['table']}"
    precision = system.get("precision", NOT_STATED)
    name = f"{place}: {system['model']}, {system.get('engine')}, {precision}, {system['num_devices']} devices"
    model_reason = f"{source['citation']['text']} names the model without a revision"
    return Result(
        schema_version=1,
        metrics_version=PUBLISHED_AS,
        id=result_id(source["citation"]["text"], name),
        kind="reported",
        created_at=datetime.fromisoformat(source["created_at"]),
        submission=None,
        run_uuid=None,
        citation=Citation(**source["citation"], place=place),
        model=ModelRecord(
            name=system["model"],
            revision=None,
            revision_reason=model_reason,
            model_type=source["models"][system["model"]],
            parameters_total=None,
            parameters_active=None,
        ),
        engine=_engine(system, place),
        precision=precision,
        hardware=HardwareRecord(**source["hardware"], num_devices=system["num_devices"]),
        points=tuple(_point(system, point) for point in system["points"]),
        accuracy=tuple(_accuracy(point) for point in system["points"]),
        environment={},
        reproduce=None,
        warnings=tuple(_notes(source, system, place)),
    )


def _engine(system: Mapping[str, Any], place: str) -> EngineRecord:
    named = system.get("engine")
    return EngineRecord(
        name=named,
        name_reason=None if named else f"{place} does not state the engine",
        version=None,
        weights_dtype=system.get("precision"),
        kv_dtype=None,
        compute_dtype=None,
    )


def _point(system: Mapping[str, Any], point: Mapping[str, Any]) -> Point:
    return Point(
        load=Load(kind="dataset", dataset=point["task"], batch_size=point.get("batch_size")),
        quantities={
            "output_tokens_per_s": _reported("output_tokens_per_s", Decimal(point["throughput"])),
            "purchase_usd": _reported("purchase_usd", Decimal(system["purchase"]) * 1000),
        },
        routing_source=None,
        accuracy_task=point["task"],
    )


def _reported(name: str, value: Decimal) -> Quantity:
    return Quantity(value=float(value), unit=QUANTITIES[name].unit, source="reported")


def _accuracy(point: Mapping[str, Any]) -> AccuracyRecord:
    task = point["task"]
    return AccuracyRecord(task=task, metric=ACCURACY_METRIC[task], value=float(Decimal(point["accuracy"]) / 100))


def _notes(source: Mapping[str, Any], system: Mapping[str, Any], place: str) -> Iterator[str]:
    yield source["hardware_note"]
    if "class" in system:
        yield f"{place} of the source classes this system as {system['class']}."
    if "precision" not in system:
        yield f"{place} does not state the precision."
