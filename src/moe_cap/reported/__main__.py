"""Write the reported results where a results store keeps them: `python -m moe_cap.reported eval-results`."""

from __future__ import annotations

import sys
from pathlib import Path

from moe_cap.reported import read_reported


def main(arguments: list[str]) -> int:
    """Write every reported record under the folder named by the one argument; files that exist are the same."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m moe_cap.reported FOLDER\n")
        return 2
    results = read_reported()
    for result in results:
        path = Path(arguments[0]) / "runs" / f"{result.created_at:%Y-%m}" / result.id[:2] / f"{result.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(result.to_json())
    sys.stdout.write(f"{len(results)} reported results in {arguments[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
