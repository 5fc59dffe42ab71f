"""Results out of the worker's hand into the store, and the table that is derived from all of them."""

from __future__ import annotations

from moe_cap.board import refresh_table
from moe_cap.result import Result
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
        """Write one result; its id."""
        month = result.created_at.strftime("%Y-%m")
        self._store.publish(result.to_json(), result_id=result.id, year_month=month)
        return result.id

    def refresh_table(self) -> None:
        """Write the table of everything that is published and readable."""
        self._parsed = refresh_table(self._store, self._parsed)
