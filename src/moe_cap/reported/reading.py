"""What a tool's file tells: points of a system, and what it says about the system itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_cap.errors import ResultError
from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.result import AccuracyRecord

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stated:
    """The system as a file names it; None where the file is silent."""

    model: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    precision: str | None = None
    device_name: str | None = None
    num_devices: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One load as a file tells it.

    Attributes:
        load: fields of `moe_cap.result.Load`, without those that the file does not tell.
        quantities: by canonical name, all `reported`.
        invalid: why this point may not be ranked.
    """

    load: Mapping[str, Any]
    quantities: Mapping[str, Quantity]
    stated: Stated = field(default_factory=Stated)
    accuracy: AccuracyRecord | None = None
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """One program whose files can be read.

    Attributes:
        name: as the command line says it.
        wrote: whether this JSON object is one of its.
        parse: all objects of one file into points; the path only finds what the program wrote beside it.
    """

    name: str
    wrote: Callable[[Json], bool]
    parse: Callable[[Sequence[Json], Path], list[Reading]]


def parse_json_objects(data: bytes) -> list[Json]:
    """Every JSON object of a file, one or several behind each other, as tools append them.

    Raises:
        ResultError: something else than objects.
    """
    decoder = json.JSONDecoder()
    try:
        text = data.decode()
        found: list[Json] = []
        at = 0
        while rest := text[at:].lstrip():
            value, length = decoder.raw_decode(rest)
            at = len(text) - len(rest) + length
            found.append(value)
    except ValueError as error:
        raise ResultError(f"no JSON: {error}") from error
    if not found or not all(isinstance(value, dict) for value in found):
        raise ResultError("expected JSON objects, one or several behind each other")
    return found


def reported(name: str, value: float, note: str | None = None) -> Quantity:
    """A number of the source under its canonical unit."""
    return Quantity(value=value, unit=QUANTITIES[name].unit, source="reported", note=note)


def unstated(name: str, reason: str) -> Quantity:
    """No number, and why."""
    return Quantity(value=None, unit=QUANTITIES[name].unit, source="reported", reason=reason)
