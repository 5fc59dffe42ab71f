"""The canonical table as a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pandas as pd

from moe_cap.errors import InvalidInputError


def _flat(table: pd.DataFrame) -> pd.DataFrame:
    """Mappings as JSON text, so that every column has one plain type in every format."""
    texts = {name: table[name].map(lambda cell: json.dumps(cell, sort_keys=True)) for name in ("missing", "sources")}
    return table.assign(**texts)


def _csv(table: pd.DataFrame) -> bytes:
    return _flat(table).to_csv(index=False).encode()


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    _flat(table).to_parquet(buffer, index=False)
    return buffer.getvalue()


def _json(table: pd.DataFrame) -> bytes:
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return json.dumps(records, sort_keys=True, allow_nan=False).encode()


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "parquet": ("application/vnd.apache.parquet", _parquet),
    "json": ("application/json", _json),
}


def export(table: pd.DataFrame, file_format: str) -> bytes:
    """Write the frame as `csv`, `parquet` or `json`: canonical names, SI units, every digit.

    Raises:
        InvalidInputError: another format was asked for.
    """
    if file_format not in FORMATS:
        raise InvalidInputError(f"{file_format!r} is not an export format; there are {', '.join(FORMATS)}")
    return FORMATS[file_format][1](table)
