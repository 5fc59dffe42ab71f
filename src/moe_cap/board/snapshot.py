"""The derived table in the results store, which `datasets.load_dataset` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moe_cap.board.export import export
from moe_cap.board.frame import frame
from moe_cap.board.records import parse_records
from moe_cap.result import METRICS_VERSION, SCHEMA_VERSION, Result
from moe_cap.results import ResultStore, Table


def refresh_table(store: ResultStore, known: Mapping[str, Result]) -> dict[str, Result]:
    """Write the table of all readable results beside them, and return them for the next call's `known`.

    Raises:
        StoreError: the store could not be read or written; the table there stays as it was.
    """
    results: Mapping[str, Result] = known

    def build(records: Sequence[tuple[str, bytes]]) -> Table:
        nonlocal results
        results, unreadable = parse_records(records, results)
        ordered = sorted(results.values(), key=lambda result: (result.created_at, result.id))
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "metrics_version": METRICS_VERSION,
            "results": len(ordered),
            "newest": ordered[-1].id if ordered else None,
            "left_out": sorted(unreadable),
        }
        return export(frame(ordered), "parquet"), manifest

    store.write_snapshot(build)
    return dict(results)
