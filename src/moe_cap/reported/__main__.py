"""Publish the reported results in a results store: `python -m moe_cap.reported eval-results`."""

from __future__ import annotations

import os
import sys

from moe_cap.board import refresh_table
from moe_cap.reported import read_reported
from moe_cap.results import ResultStore
from moe_cap.store import open_store


def main(arguments: list[str]) -> int:
    """Publish every reported record in the one named store, a folder or `hub://namespace/name`; again is no change."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m moe_cap.reported STORE\n")
        return 2
    store = ResultStore(open_store(arguments[0], token=os.environ.get("HF_TOKEN")))
    results = read_reported()
    for result in results:
        store.publish(result.to_json(), result_id=result.id, year_month=f"{result.created_at:%Y-%m}")
    refresh_table(store, {})
    sys.stdout.write(f"{len(results)} reported results in {arguments[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
