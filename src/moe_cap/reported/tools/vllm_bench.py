"""`vllm bench serve --save-result`: one JSON object a run, several with `--append-result`.

Keys and meanings are those of vLLM 0.32 (`vllm/benchmarks/serve.py`); the fixtures of the tests are its own files. It
speaks to any OpenAI-compatible server, so that servers without an adapter here can be measured with it. Its TTFT, TPOT
(end minus first token, over output tokens minus one) and E2EL are defined as ours are; they are taken over all
completed requests of the run, where a measured result takes those of the steady window.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moe_cap.reported.reading import Json, Reading, Stated, Tool, reported
from moe_cap.reported.tools.serving import completed, latencies, lengths_of, load_of, rates

LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
RATES = {
    "output_throughput": "output_tokens_per_s",
    "total_token_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
    "request_goodput": "goodput_requests_per_s",
}


def _wrote(record: Json) -> bool:
    return {"model_id", "tokenizer_id", "num_prompts", "request_throughput", "output_throughput"} <= record.keys()


def _parse(records: Sequence[Json], path: Path) -> list[Reading]:
    return [_reading(record) for record in records]


def _reading(record: Json) -> Reading:
    done = completed(record)
    note = f"vllm bench serve: over the {done} completed requests of the whole run"
    quantities = latencies(record, LATENCIES, note) | rates(record, RATES, note)
    failed = record.get("failed")
    if failed is not None:
        quantities["failed_requests"] = reported("failed_requests", failed)
    return Reading(
        load={
            **load_of(record, float(record["request_rate"])),
            **lengths_of(record),
            "num_requests": record["num_prompts"],
        },
        quantities=quantities,
        stated=Stated(model=record["model_id"]),
        invalid=(f"{failed} of {record['num_prompts']} requests failed",) if failed else (),
    )


TOOL = Tool("vllm-bench", _wrote, _parse)
