"""Results out of the worker's hand into the store, and the table that is derived from all of them."""

from __future__ import annotations

import logging

from moe_cap.board import export, frame
from moe_cap.errors import ResultError
from moe_cap.result import METRICS_VERSION, SCHEMA_VERSION, Result, parse_result
from moe_cap.results import ResultStore

LOG = logging.getLogger(__name__)


class Publisher:
    """Publishes results, each once, and keeps the Parquet table beside them up to date."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._parsed: dict[str, Result] = {}

    def has(self, result_id: str) -> bool:
        """Whether a result of this id was published."""
        return self._store.has(result_id)

    def publish(self, result: Result) -> str:
        """Write one result; its id."""
        month = result.created_at.strftime("%Y-%m")
        self._store.publish(result.to_json(), result_id=result.id, year_month=month)
        return result.id

    def refresh_table(self) -> None:
        """Write the table of everything that is published and readable."""
        parsed = {result_id: self._parse(result_id, data) for result_id, data in self._store.read_all()}
        self._parsed = {result_id: result for result_id, result in parsed.items() if result is not None}
        results = sorted(self._parsed.values(), key=lambda result: (result.created_at, result.id))
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "metrics_version": METRICS_VERSION,
            "results": len(results),
            "newest": results[-1].id if results else None,
            "left_out": sorted(set(parsed) - set(self._parsed)),
        }
        self._store.write_snapshot(export(frame(results), "parquet"), manifest)

    def _parse(self, result_id: str, data: bytes) -> Result | None:
        if result_id in self._parsed:  # published records never change
            return self._parsed[result_id]
        try:
            return parse_result(data)
        except ResultError as error:
            LOG.warning("result %s is left out of the table: %s", result_id, error)
            return None
