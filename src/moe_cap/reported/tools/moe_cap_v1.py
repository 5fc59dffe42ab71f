"""`metrics_<dataset>_<time>.json` of the predecessor's profiler, with the `metadata_` file that it writes beside it.

Keys and meanings are read from its published source (Auto-CAP/MoE-CAP, `runner/openai_api_profile.py`); a file of it
was never seen here. Its `ttft` and `tpot` are means over forward passes in the server where it recorded any, and over
requests else. A 0 stands for what it did not record. Its `e2e_s` is the whole time over the number of requests, which
is no latency, and is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from moe_cap.errors import ResultError
from moe_cap.quantity import Quantity
from moe_cap.reported.reading import Json, Reading, Stated, Tool, parse_json_objects, reported, unstated
from moe_cap.result import AccuracyRecord

FILE = re.compile(r"metrics_(?P<dataset>.+)_\d{8}_\d{6}\.json")
PASSES = "MoE-CAP's profiler: mean over the server's {} passes, without queueing"
REQUESTS = "MoE-CAP's profiler: mean over requests, on its client's clock"
UNRECORDED = "MoE-CAP's profiler writes 0 where it recorded nothing"
METRICS = {"arena-hard": "win_rate", "longbench_v1": "mean of its tasks' metrics"}
"""What `quality.acc` counts where it is no exact match."""


def _wrote(record: Json) -> bool:
    return {"performance", "expert_activation"} <= record.keys()


def _parse(records: Sequence[Json], path: Path) -> list[Reading]:
    named = FILE.fullmatch(path.name)
    if named is None or len(records) != 1:
        raise ResultError("expected metrics_<dataset>_<time>.json as MoE-CAP's profiler names and writes it")
    beside = path.with_name("metadata" + path.name.removeprefix("metrics"))
    if not beside.is_file():
        raise ResultError(f"{beside.name} is not beside it: it says which system this was")
    (metrics,), (metadata,) = records, parse_json_objects(beside.read_bytes())
    return [_reading(metrics, metadata, named["dataset"])]


def _reading(metrics: Json, metadata: Json, dataset: str) -> Reading:
    batch_size = metadata["system_environment"].get("batch_size")
    load = {"kind": "dataset", "dataset": dataset, "batch_size": batch_size}
    quality = metrics.get("quality")
    score = None
    if quality is not None and quality.get("total"):
        metric = METRICS.get(dataset.lower(), "exact_match")
        task = dataset.lower().replace("-", "_")
        score = AccuracyRecord(task=task, metric=metric, value=quality["acc"], num_samples=quality["total"])
    return Reading(load, _quantities(metrics), _stated(metadata), score)


def _quantities(metrics: Json) -> dict[str, Quantity]:
    performance, profile = metrics["performance"], metrics.get("batch_token_profile") or {}
    found: dict[str, Quantity] = {}
    for theirs, ours, phase in (("ttft", "ttft_s_mean", "prefill"), ("tpot", "tpot_s_mean", "decode")):
        recorded = profile.get(f"{phase}_avg_batch_size")
        found[ours] = _known(ours, performance.get(theirs), PASSES.format(phase) if recorded else REQUESTS)
    for phase in ("prefill", "decode"):
        name = f"{phase}_activated_experts"
        value = metrics["expert_activation"].get(f"avg_expert_activation_{phase}")
        found[name] = _known(name, value, PASSES.format(phase))
    rate = performance.get("request/s")
    found["requests_per_s"] = _known("requests_per_s", rate, "all requests that were sent, failed ones too")
    answer = profile.get("decode_generated_tokens_per_request")
    if rate and answer:
        note = "its requests per second times its output tokens per request"
        found["output_tokens_per_s"] = reported("output_tokens_per_s", rate * answer, note)
    return found


def _known(name: str, value: float | None, note: str) -> Quantity:
    return reported(name, value, note) if value else unstated(name, UNRECORDED)


def _stated(metadata: Json) -> Stated:
    model, hardware, system = (metadata[part] for part in ("model_config", "hardware", "system_environment"))
    version, device = system.get("inference_engine_version"), hardware.get("gpu_type")
    return Stated(
        model=model.get("model_name"),
        engine=system.get("inference_engine"),
        engine_version=None if version == "unknown" else version,
        precision=model.get("precision"),
        device_name=None if device == "Unknown" else device,
        num_devices=hardware.get("num_gpus"),
    )


TOOL = Tool("moe-cap-v1", _wrote, _parse)
