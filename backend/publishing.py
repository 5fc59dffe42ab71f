"""Results out of the worker's hand into the store, and the table that is derived from all of them."""

from __future__ import annotations

from moe_cap.board import refresh_table
from moe_cap.result import Result, parse_result
from moe_cap.results import ResultStore


class Publisher:
    """Publishes results, each once, and keeps the Parquet table beside them up to date."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._parsed: dict[str, Result] = {}

    def check_writable(self) -> None:
        """Find out whether something could be published; raises as `Store.check_writable`."""
        self._store.check_writable()

    def has(self, result_id: str) -> bool:
        """Whether a result of this id was published."""
        return self._store.has(result_id)

    def publish(self, result: Result) -> str:
        """Write one result; its id.

        Raises:
            ResultError: nobody could read its record back, so it is not written.
        """
        record = result.to_json()
        parse_result(record)
        self._store.publish(record, result_id=result.id, year_month=result.created_at.strftime("%Y-%m"))
        return result.id

    def refresh_table(self) -> None:
        """Write the table of everything that is published and readable."""
        self._parsed = refresh_table(self._store, self._parsed)
