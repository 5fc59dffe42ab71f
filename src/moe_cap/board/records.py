"""Bytes of a results store turned into results, each parsed once; what cannot be read is named and left out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from moe_cap.errors import ResultError
from moe_cap.result import Result, parse_result

log = logging.getLogger(__name__)


class Records(NamedTuple):
    """What a store holds: results by id, and why the others could not be read."""

    results: dict[str, Result]
    unreadable: dict[str, str]


def parse_records(records: Iterable[tuple[str, bytes]], known: Mapping[str, Result]) -> Records:
    """Parse what is not in `known`: a published record never changes."""
    results: dict[str, Result] = {}
    unreadable: dict[str, str] = {}
    for result_id, data in records:
        try:
            results[result_id] = known[result_id] if result_id in known else parse_result(data)
        except ResultError as error:
            unreadable[result_id] = str(error)
            log.warning("result %s is left out: %s", result_id, error)
    return Records(results, unreadable)
