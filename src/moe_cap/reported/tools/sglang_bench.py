"""`python -m sglang.benchmark.serving --output-file` (formerly `sglang.bench_serving`): a JSON object a line and run.

Keys and meanings are those of SGLang 0.5.23; the fixtures of the tests are its own files. `server_info` is what a
server of SGLang told about itself, null for other servers. How many requests were asked for, and how many failed, it
says only with `--output-details`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_cap.errors import ResultError
from moe_cap.reported.reading import Json, Reading, Stated, Tool, reported
from moe_cap.reported.tools.serving import completed, latencies, lengths_of, load_of, rates

LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2e_latency": "e2e_s"}
RATES = {
    "output_throughput": "output_tokens_per_s",
    "total_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
}
GENERATED = frozenset({"random", "random-ids"})
"""Data that are drawn, not taken from anywhere."""


def _wrote(record: Json) -> bool:
    return {"sharegpt_output_len", "random_range_ratio", "mean_e2e_latency_ms", "output_throughput"} <= record.keys()


def _parse(records: Sequence[Json], path: Path) -> list[Reading]:
    return [_reading(record) for record in records]


def _reading(record: Json) -> Reading:
    done = completed(record)
    note = f"sglang.benchmark.serving: over the {done} completed requests of the whole run"
    quantities = latencies(record, LATENCIES, note) | rates(record, RATES, note)
    errors = record.get("errors")
    failed = None if errors is None else sum(bool(error) for error in errors)
    if failed is not None:
        quantities["failed_requests"] = reported("failed_requests", failed)
    return Reading(
        load=_load(record, done) | ({} if errors is None else {"num_requests": len(errors)}),
        quantities=quantities,
        stated=_stated(record),
        invalid=(f"{failed} of {len(errors or ())} requests failed",) if failed else (),
    )


def _load(record: Json, done: int) -> dict[str, Any]:
    if record["request_rate"] == "trace":
        raise ResultError("the requests came by a trace, whose times are not in the file: no load can be told")
    load = load_of(record, float(record["request_rate"])) | lengths_of(record)
    if record["dataset_name"] not in GENERATED:
        return load | {"dataset": record["dataset_name"]}
    told = {"input_tokens": record["random_input_len"], "output_tokens": record["random_output_len"]}
    exact = told["input_tokens"] * done == record["total_input_tokens"]
    exact = exact and told["output_tokens"] * done == record["total_output_tokens"]
    return load | (told if exact and record["random_range_ratio"] == 1.0 else {})


def _stated(record: Json) -> Stated:
    info = record.get("server_info")
    if info is None:
        return Stated()
    return Stated(
        model=info.get("served_model_name") or info.get("model_path"),
        engine="SGLang",
        engine_version=info.get("version"),
    )


TOOL = Tool("sglang-bench", _wrote, _parse)
