"""The table as the page's grid reads it: columns with their display, values in display units, reasons kept once."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from moe_cap.board.columns import BY_FIELD, COLUMNS, SPREADS, Column, Spread
from moe_cap.offerings import ENGINE_TITLES

EXTRA = (
    "row",
    "result",
    "valid",
    "invalid",
    "device_name",
    "cap_class_reason",
    "citation_text",
    "citation_url",
    "citation_place",
    "warnings",
)
"""Fields that cells need and that no one chooses as a column."""
DIGITS = 7
"""Significant digits that a screen needs; the files and records keep all."""
LOAD = ("dataset", "request_rate_per_s", "concurrency", "batch_size", "input_tokens", "output_tokens")
"""What `show_load` reads."""
FACETS = {
    "kind": "Source",
    "model_type": "Family",
    "engine": "Engine",
    "precision": "Precision",
    "device_name": "Hardware",
    "task": "Task",
}


def payload(table: pd.DataFrame) -> dict[str, Any]:
    """Return plain JSON: `columns`, `facets`, `values` by field in row order, and `missing[field][row number]`.

    `aliases` are other names of facet values, which older addresses may hold.
    A column that is null in every row is left out unless it is shown by default. `spread` of a column names the field
    that says how uncertain it is, in the column's unit; null where no row knows that.
    """
    shown = _composed(table)
    columns = [column for column in COLUMNS if column.visible or shown[column.field].notna().any()]
    values = {column.field: _display(shown[column.field], column) for column in columns}
    spreads = {name: spread for name, spread in SPREADS.items() if shown[spread.field].notna().any()}
    values |= {spread.field: _display(shown[spread.field], BY_FIELD[name]) for name, spread in spreads.items()}
    values |= {name: _plain(shown[name]) for name in (*EXTRA, *FACETS) if name not in values}
    return {
        "columns": [_heading(column, spreads.get(column.field)) for column in columns],
        "facets": FACETS,
        "aliases": {"engine": _aliases(shown["engine"])},
        "values": values,
        "missing": _missing(table, [column.field for column in columns]),
        "count": len(table),
    }


def _heading(column: Column, spread: Spread | None) -> dict[str, Any]:
    return asdict(column) | {"heading": column.heading, "spread": spread and asdict(spread)}


def _aliases(engines: pd.Series[Any]) -> dict[str, str]:
    """Titles of the engines of this table by all their names, in lower case."""
    shown = set(engines.dropna())
    return {word: title for word, title in ENGINE_TITLES.items() if title in shown}


def _composed(table: pd.DataFrame) -> pd.DataFrame:
    hardware = [f"{count} × {name}" for count, name in zip(table["num_devices"], table["device_name"], strict=True)]
    validity = ["valid" if pd.isna(rules) else f"invalid: {rules}" for rules in table["invalid"]]
    load = [show_load(row) for row in table[list(LOAD)].to_dict("records")]
    return table.assign(hardware=hardware, load=load, validity=validity)


def show_load(row: Mapping[Hashable, Any]) -> str:
    """One row's load in a few words: `4 in flight · 128→64`, `gsm8k · batch 32`."""
    parts: list[str] = []
    if pd.notna(row["dataset"]):
        parts.append(str(row["dataset"]))
    if pd.notna(row["request_rate_per_s"]):
        parts.append(f"{row['request_rate_per_s']:g} req/s")
    if pd.notna(row["concurrency"]):
        parts.append(f"{row['concurrency']} in flight")
    elif pd.notna(row["batch_size"]):
        parts.append(f"batch {row['batch_size']}")
    if pd.notna(row["input_tokens"]) and pd.notna(row["output_tokens"]):
        parts.append(f"{row['input_tokens']}→{row['output_tokens']}")
    return " · ".join(parts)


def _display(series: pd.Series[Any], column: Column) -> list[Any]:
    if column.kind != "number":
        return _plain(series)
    scale = column.scale
    return [value if value is None else float(f"{value * scale:.{DIGITS}g}") for value in _plain(series)]


def _plain(series: pd.Series[Any]) -> list[Any]:
    return series.astype(object).where(series.notna(), None).tolist()


def _missing(table: pd.DataFrame, fields: list[str]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    wanted = set(fields)
    for number, reasons in enumerate(table["missing"]):
        for field, reason in reasons.items():
            if field in wanted:
                found.setdefault(field, {})[number] = reason
    return found
