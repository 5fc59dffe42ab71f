"""What the serving benchmarks of vLLM and SGLang have in common; the second grew out of the first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moe_cap.errors import ResultError
from moe_cap.quantity import Quantity
from moe_cap.reported.reading import Json, reported, unstated

STATISTICS = {"mean": "mean", "std": "std", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
"""Their words for a statistic, and ours."""
NO_VALUE = "the tool writes 0 where it had no value"
CHUNKS = "; gaps between chunks, of which each may hold several tokens"
MS = 1e-3


def latencies(record: Json, keys: Mapping[str, str], note: str) -> dict[str, Quantity]:
    """Every statistic of every latency that the record holds, from milliseconds.

    Args:
        record: one run.
        keys: their word for a latency to ours, `ttft` to `ttft_s`.
        note: what they were taken over.
    """
    found: dict[str, Quantity] = {}
    for theirs, ours in keys.items():
        for statistic, short in STATISTICS.items():
            value = record.get(f"{statistic}_{theirs}_ms")
            name = f"{ours}_{short}"
            if value is not None and name not in found:
                said = note + (CHUNKS if ours == "itl_s" else "")
                found[name] = reported(name, value * MS, said) if value > 0 else unstated(name, NO_VALUE)
    return found


def rates(record: Json, keys: Mapping[str, str], note: str) -> dict[str, Quantity]:
    """Rates over the whole run; what the record has no number for is left out."""
    return {ours: reported(ours, record[theirs], note) for theirs, ours in keys.items() if record.get(theirs)}


def completed(record: Json) -> int:
    """How many requests were answered.

    Raises:
        ResultError: none was.
    """
    count = int(record["completed"])
    if count < 1:
        raise ResultError("no request of this run completed: there is nothing to import")
    return count


def load_of(record: Json, rate: float) -> dict[str, Any]:
    """How requests came: by the clock, so many in flight, or all at once."""
    in_flight = record.get("max_concurrency")
    load: dict[str, Any] = {} if in_flight is None else {"concurrency": in_flight}
    if math.isfinite(rate):
        return {"kind": "open_loop", "request_rate_per_s": rate, **load}
    return {"kind": "offline" if in_flight is None else "closed_loop", **load}


def lengths_of(record: Json) -> dict[str, Any]:
    """Prompt and answer length in tokens where every request had the same, else their means in words."""
    known = {
        field: record[lens][0]
        for field, lens in (("input_tokens", "input_lens"), ("output_tokens", "output_lens"))
        if len(set(record.get(lens) or ())) == 1
    }
    count = completed(record)
    mean_in, mean_out = record["total_input_tokens"] / count, record["total_output_tokens"] / count
    return {**known, "prompts": f"{mean_in:.6g} input and {mean_out:.6g} output tokens a request, mean"}
