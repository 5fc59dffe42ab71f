"""The document in which results from elsewhere are handed in: YAML (or JSON), version 1, docs/results.md.

It names the source, the system and, load by load, what the source says. Quantities have the names and units of
`moe_cap.quantity`; a name or unit that does not exist there, a negative number, and a percentage where a ratio belongs
are refused. Nothing is computed from what it says: utilisations and costs that the source does not state stay null.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, Field, JsonValue, ValidationError, model_validator

from moe_cap.errors import ResultError
from moe_cap.quantity import QUANTITIES
from moe_cap.result import AccuracyRecord, Citation, Record, Text

RATIOS = frozenset(
    name
    for name, spec in QUANTITIES.items()
    if spec.unit == "1" and ("s_mbu" in name or "s_mfu" in name or spec.group == "routing")
)
"""Never above 1; who writes 41.6 means percent."""

Count = Annotated[int, Field(ge=1)]


class Missing(Record):
    """A figure that the source withholds, and why."""

    reason: Text


Figure = Annotated[float, Field(strict=True, ge=0)] | Missing


class GivenModel(Record):
    """Which weights, as far as the source says."""

    name: Text | None = None
    revision: Text | None = None
    model_type: Text | None = None
    parameters_total: Count | None = None
    parameters_active: Count | None = None
    weights_bytes: float | None = Field(default=None, gt=0)
    random_weights: bool = False


class GivenEngine(Record):
    """Which engine, as far as the source says; how it spread the model goes into `arguments`."""

    name: Text | None = None
    version: Text | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    kv_dtype: Text | None = None
    compute_dtype: Text | None = None
    quantisation: Text | None = None


class GivenHardware(Record):
    """What it ran on; `device` is an id of the catalogue (`moe-cap hardware`)."""

    device: Text
    device_name: Text | None = None
    num_devices: Count | None = None
    driver: Text | None = None
    host_cpu: Text | None = None
    host_cores: Count | None = None
    host_memory_bytes: float | None = Field(default=None, gt=0)


class GivenPoint(Record):
    """One load and what the source says about it."""

    load: dict[str, JsonValue] = Field(default_factory=dict)
    quantities: dict[str, Figure] = Field(default_factory=dict)
    accuracy_task: Text | None = None

    @model_validator(mode="after")
    def _names_and_ratios(self) -> GivenPoint:
        for name, figure in self.quantities.items():
            if name not in QUANTITIES:
                raise ValueError(f"{name!r} is no quantity; docs/metrics.md and moe_cap/quantity.py list them")
            if name in RATIOS and isinstance(figure, float) and figure > 1:
                raise ValueError(f"{name} is a ratio, 0 to 1, not {figure:g}")
        return self


class Report(Record):
    """The whole document; without `points` it describes the system whose points are in files of tools."""

    moe_cap_report: Literal[1]
    """Version of this form."""
    citation: Citation
    created_at: AwareDatetime
    """When the figures were taken, or published."""
    model: GivenModel = GivenModel()
    engine: GivenEngine = GivenEngine()
    precision: Text | None = None
    hardware: GivenHardware
    load: dict[str, JsonValue] = Field(default_factory=dict)
    """What every point's load has in common."""
    points: tuple[GivenPoint, ...] = ()
    accuracy: tuple[AccuracyRecord, ...] = ()
    notes: tuple[Text, ...] = ()
    """What a reader must know; shown as warnings."""


def parse_report(data: bytes | str) -> Report:
    """Read a document.

    Raises:
        ResultError: it is no YAML, or names the key that does not hold and what was expected.
    """
    body = _parse_body(data)
    if not isinstance(body, dict) or "moe_cap_report" not in body:
        raise ResultError("no report: its first key is `moe_cap_report: 1`")
    try:
        return Report.model_validate(body)
    except ValidationError as error:
        raise place_of(error) from error


def _parse_body(data: bytes | str) -> object:
    try:
        return json.loads(data)  # YAML 1.1 takes JSON's 5e-3 for a text
    except ValueError:
        pass
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise ResultError(f"no YAML: {error}") from error


def place_of(error: ValidationError) -> ResultError:
    """The first thing that does not hold, by the place where it stands."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return ResultError(f"{place or 'report'}: {first['msg'].removeprefix('Value error, ')}")
