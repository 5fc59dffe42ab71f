"""The derived table in the results store, which `datasets.load_dataset` reads."""

from __future__ import annotations

import hashlib
import logging

from moe_cap.board.export import export
from moe_cap.board.frame import frame
from moe_cap.errors import ResultError
from moe_cap.result import SCHEMA_VERSION, Result, parse_result
from moe_cap.results import ResultStore

log = logging.getLogger(__name__)


def refresh_table(results: ResultStore) -> None:
    """Write the table of all results beside them; a record that cannot be read is logged and left out.

    Raises:
        StoreError: the store could not be read or written; the table there stays as it was.
    """
    readable: list[Result] = []
    for result_id, data in results.read_all():
        try:
            readable.append(parse_result(data))
        except ResultError as error:
            log.warning("result %s is left out of the table: %s", result_id, error)
    readable.sort(key=lambda result: (result.created_at, result.id))
    table = frame(readable)
    ids = hashlib.sha256("\n".join(sorted(result.id for result in readable)).encode()).hexdigest()
    manifest = {"results": len(readable), "rows": len(table), "schema_version": SCHEMA_VERSION, "ids_sha256": ids}
    results.write_snapshot(export(table, "parquet"), manifest)
