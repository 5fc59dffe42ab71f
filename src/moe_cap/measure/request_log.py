"""Every event of the requests of a load, beside the result that holds only what its numbers need."""

from __future__ import annotations

import json
from pathlib import Path

from moe_cap.expert_trace import load_name
from moe_cap.measure.points import LevelResult


def write_requests(level: LevelResult, folder: Path) -> None:
    """Write `requests-<load>.jsonl`, a line for each request of each repetition; none where a client kept no events.

    A file of that name stays until the new one is whole.
    """
    lines = [
        json.dumps({"request_id": done.request_id, "repeat": repeat, **events})
        for repeat, timed in enumerate(level.passes)
        for done, events in zip(timed.run.completions, timed.run.events, strict=False)
    ]
    if not lines:
        return
    path = folder / f"requests-{load_name(level.load)}.jsonl"
    part = path.with_name(f"{path.name}.part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(path)
