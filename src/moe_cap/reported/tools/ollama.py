"""Answers of Ollama's own interface, `/api/generate` and `/api/chat`: what it says about each answer at its end.

Fields and units (nanoseconds) are those of its documentation (docs/api/usage.mdx); no server of it was ever run here.
Its clocks stand in the server, beside the engine: they give the rate of computing prompts and the time per token, and
no TTFT, which a client sees. A prompt that was found in its cache has no `prompt_eval_count` or a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from moe_cap.errors import ResultError
from moe_cap.metrics.latency import summary
from moe_cap.quantity import Quantity
from moe_cap.reported.reading import Json, Reading, Stated, Tool, reported, unstated

NS = 1e-9
OVERLAP = "answers overlapped, so the server's time for each of them holds that of others"
BY_CLIENT = "Ollama's counters stand in the server; a client did not measure it"


def _wrote(record: Json) -> bool:
    return {"model", "created_at", "done"} <= record.keys()


def _parse(records: Sequence[Json], path: Path) -> list[Reading]:
    final = [record for record in records if record["done"] and record.get("eval_count")]
    if not final:
        raise ResultError("no final answer (`done: true` with eval_count) is in this file")
    models = {str(record["model"]) for record in final}
    if len(models) > 1:
        raise ResultError(f"answers of several models ({', '.join(sorted(models))}): give a file for each")
    one_by_one = _one_by_one(final)
    load = {"kind": "closed_loop", "num_requests": len(final)} | ({"concurrency": 1} if one_by_one else {})
    quantities = _time_per_token(final) | _rates(final, one_by_one=one_by_one)
    for name in ("ttft_s_p50", "output_tokens_per_s"):
        quantities[name] = unstated(name, BY_CLIENT)
    return [Reading(load, quantities, Stated(model=models.pop(), engine="Ollama"))]


def _one_by_one(final: Sequence[Json]) -> bool:
    """Whether no answer was asked for before the one before it was complete."""
    spans = sorted((_ended(record) - _lasted(record), _ended(record)) for record in final)
    return all(before[1] <= after[0] for before, after in pairwise(spans))


def _ended(record: Json) -> datetime:
    return datetime.fromisoformat(record["created_at"])


def _lasted(record: Json) -> timedelta:
    return timedelta(seconds=record["total_duration"] * NS)


def _time_per_token(final: Sequence[Json]) -> dict[str, Quantity]:
    note = f"Ollama: eval_duration over eval_count of {len(final)} answers, the first token counted"
    found = summary([record["eval_duration"] * NS / record["eval_count"] for record in final])
    values = {} if found is None else {"tpot_s_mean": found.mean, "tpot_s_p50": found.p50}
    return {name: reported(name, value, note) for name, value in values.items()}


def _rates(final: Sequence[Json], *, one_by_one: bool) -> dict[str, Quantity]:
    found: dict[str, Quantity] = {}
    for name, what in (("prefill_tokens_per_s", "prompt_eval"), ("decode_tokens_per_s", "eval")):
        tokens = sum(record.get(f"{what}_count") or 0 for record in final)
        seconds = sum(record.get(f"{what}_duration") or 0 for record in final) * NS
        if not one_by_one:
            found[name] = unstated(name, OVERLAP)
        elif tokens and seconds:
            found[name] = reported(name, tokens / seconds, f"Ollama: {what}_count over {what}_duration, summed")
    return found


TOOL = Tool("ollama", _wrote, _parse)
