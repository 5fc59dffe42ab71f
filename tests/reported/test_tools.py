"""Files of other programs: their figures under our names and units, and nothing that they do not say."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_cap.errors import ResultError
from moe_cap.reported.build import build_result
from moe_cap.reported.document import parse_report
from moe_cap.reported.reading import Reading
from moe_cap.reported.tools import TOOLS, read_tool_file
from tests.reported.reports import report

FIXTURES = Path(__file__).parent / "fixtures"
VLLM_CLOSED, VLLM_OPEN = FIXTURES / "vllm-0.32-closed.json", FIXTURES / "vllm-0.32-open-detailed.json"
SGLANG_CLOSED, SGLANG_OPEN = FIXTURES / "sglang-0.5.23-closed.jsonl", FIXTURES / "sglang-0.5.23-open-detailed.jsonl"
OLLAMA = FIXTURES / "ollama-generate.jsonl"
PREDECESSOR = FIXTURES / "moe-cap-v1" / "metrics_gsm8k_20260105_101112.json"


def value(reading: Reading, name: str) -> float | None:
    return reading.quantities[name].value


def changed(source: Path, to: Path, **fields: Any) -> Path:
    """The last JSON object of a fixture with other fields, None leaving one out."""
    record = json.loads(source.read_text().splitlines()[-1]) | fields
    gone = {name for name, each in fields.items() if each is None}
    to.write_text(json.dumps({name: each for name, each in record.items() if name not in gone}))
    return to


@pytest.mark.parametrize("path", [VLLM_OPEN, SGLANG_OPEN], ids=["vllm", "sglang"])
def test_latencies_are_those_of_the_requests_in_the_same_file(path: Path) -> None:
    raw = json.loads(path.read_text())
    (reading,) = read_tool_file(path)
    ttft, itl = raw["ttfts"], raw["itls"]
    assert value(reading, "ttft_s_mean") == pytest.approx(statistics.fmean(ttft))
    assert value(reading, "ttft_s_p50") == pytest.approx(statistics.median(ttft))
    e2e = [first + sum(gaps) for first, gaps in zip(ttft, itl, strict=True)]
    assert value(reading, "e2e_s_mean") == pytest.approx(statistics.fmean(e2e), rel=0.02)
    tpot = [sum(gaps) / (count - 1) for gaps, count in zip(itl, raw["output_lens"], strict=True)]
    assert value(reading, "tpot_s_p50") == pytest.approx(statistics.median(tpot), rel=0.05)
    assert value(reading, "output_tokens_per_s") == pytest.approx(sum(raw["output_lens"]) / raw["duration"])
    assert value(reading, "requests_per_s") == pytest.approx(len(ttft) / raw["duration"])
    assert value(reading, "failed_requests") == 0
    assert {quantity.source for quantity in reading.quantities.values()} == {"reported"}
    assert "over the 6 completed requests of the whole run" in str(reading.quantities["ttft_s_p50"].note)
    assert reading.load["kind"] == "open_loop"
    assert (reading.load["request_rate_per_s"], reading.load["num_requests"]) == (20.0, 6)


@pytest.mark.parametrize("path", [VLLM_CLOSED, SGLANG_CLOSED], ids=["vllm", "sglang"])
def test_a_run_without_a_rate_is_a_closed_loop_where_its_requests_are_bounded(path: Path, tmp_path: Path) -> None:
    (reading,) = read_tool_file(path)
    assert (reading.load["kind"], reading.load["concurrency"]) == ("closed_loop", 2)
    assert "request_rate_per_s" not in reading.load
    (unbounded,) = read_tool_file(changed(path, tmp_path / "all-at-once.json", max_concurrency=None))
    assert unbounded.load["kind"] == "offline"


def test_lengths_are_told_only_where_all_requests_had_the_same(tmp_path: Path) -> None:
    (detailed,) = read_tool_file(VLLM_OPEN)
    assert detailed.load["output_tokens"] == 8
    assert "input_tokens" not in detailed.load
    assert detailed.load["prompts"] == "1.16667 input and 8 output tokens a request, mean"
    (drawn,) = read_tool_file(SGLANG_CLOSED)
    assert (drawn.load["input_tokens"], drawn.load["output_tokens"]) == (24, 8)
    (varied,) = read_tool_file(changed(SGLANG_CLOSED, tmp_path / "varied.jsonl", random_range_ratio=0.5))
    assert "input_tokens" not in varied.load
    (named,) = read_tool_file(changed(SGLANG_CLOSED, tmp_path / "named.jsonl", dataset_name="sharegpt"))
    assert named.load["dataset"] == "sharegpt"


def test_sglangs_server_names_itself(tmp_path: Path) -> None:
    (reading,) = read_tool_file(SGLANG_CLOSED)
    assert (reading.stated.engine, reading.stated.engine_version) == ("SGLang", "0.5.23")
    raw = json.loads(SGLANG_CLOSED.read_text()) | {"server_info": None}
    other = tmp_path / "other-server.jsonl"
    other.write_text(json.dumps(raw))
    (silent,) = read_tool_file(other)
    assert silent.stated.engine is None


def test_runs_behind_each_other_in_one_file_are_a_point_each(tmp_path: Path) -> None:
    both = tmp_path / "appended.json"
    both.write_text(f"{VLLM_CLOSED.read_text()}\n{VLLM_OPEN.read_text()}")
    assert [reading.load["kind"] for reading in read_tool_file(both)] == ["closed_loop", "open_loop"]


def test_a_run_with_failures_is_invalid_and_one_without_an_answer_no_result(tmp_path: Path) -> None:
    (reading,) = read_tool_file(changed(VLLM_CLOSED, tmp_path / "failed.json", failed=2, completed=4))
    assert reading.invalid == ("2 of 6 requests failed",)
    errors = ["", "", "", "", "", "Traceback"]
    (reading,) = read_tool_file(changed(SGLANG_OPEN, tmp_path / "failed.jsonl", errors=errors, completed=5))
    assert reading.invalid == ("1 of 6 requests failed",)
    with pytest.raises(ResultError, match="no request of this run completed"):
        read_tool_file(changed(VLLM_CLOSED, tmp_path / "none.json", completed=0))


def test_a_zero_that_stands_for_nothing_is_null(tmp_path: Path) -> None:
    (reading,) = read_tool_file(changed(VLLM_CLOSED, tmp_path / "one-token.json", mean_tpot_ms=0.0))
    assert value(reading, "tpot_s_mean") is None
    assert "writes 0 where it had no value" in str(reading.quantities["tpot_s_mean"].reason)


def test_ollamas_counters_give_rates_and_no_latency_that_a_client_would_see() -> None:
    (reading,) = read_tool_file(OLLAMA)
    assert reading.load == {"kind": "closed_loop", "num_requests": 1, "concurrency": 1}
    assert value(reading, "prefill_tokens_per_s") == pytest.approx(11 / 0.013074791)
    assert value(reading, "decode_tokens_per_s") == pytest.approx(18 / 0.052479709)
    assert value(reading, "tpot_s_p50") == pytest.approx(0.052479709 / 18)
    assert value(reading, "ttft_s_p50") is None
    assert (reading.stated.model, reading.stated.engine) == ("gemma4", "Ollama")


@pytest.mark.parametrize(("second_ends", "concurrency"), [("07.50", None), ("07.60", 1)])
def test_ollamas_rates_are_null_where_answers_overlapped(
    second_ends: str, concurrency: int | None, tmp_path: Path
) -> None:
    first = json.loads(OLLAMA.read_text().splitlines()[-1])
    second = first | {"created_at": f"2025-10-17T23:14:{second_ends}Z"}
    path = tmp_path / "two.jsonl"
    path.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    (reading,) = read_tool_file(path)
    assert reading.load.get("concurrency") == concurrency
    assert (value(reading, "decode_tokens_per_s") is None) == (concurrency is None)
    assert value(reading, "tpot_s_mean") == pytest.approx(0.052479709 / 18)


def test_a_prompt_from_ollamas_cache_has_no_rate(tmp_path: Path) -> None:
    gone = changed(OLLAMA, tmp_path / "cached.json", prompt_eval_count=None, prompt_eval_duration=None)
    (reading,) = read_tool_file(gone)
    assert "prefill_tokens_per_s" not in reading.quantities


def test_the_predecessors_files_name_the_system_themselves() -> None:
    (reading,) = read_tool_file(PREDECESSOR)
    assert reading.load == {"kind": "dataset", "dataset": "gsm8k", "batch_size": 1}
    assert value(reading, "tpot_s_mean") == 0.005
    assert "without queueing" in str(reading.quantities["tpot_s_mean"].note)
    assert value(reading, "decode_activated_experts") == 4.0
    assert value(reading, "output_tokens_per_s") == pytest.approx(12800 / 40.0)
    assert reading.accuracy is not None
    assert (reading.accuracy.task, reading.accuracy.value, reading.accuracy.num_samples) == ("gsm8k", 0.75, 256)
    bare = report(model=None, engine=None, precision=None, points=None, hardware={"device": "h100-sxm-80gb"})
    result = build_result(parse_report(json.dumps(bare)), [reading])
    assert (result.model.name, result.engine.name, result.engine.version) == ("Qwen/Qwen3-30B-A3B", "sglang", "0.5.8")
    assert (result.precision, result.hardware.num_devices) == ("bfloat16", 2)
    assert result.points[0].accuracy_task == "gsm8k"


def test_the_predecessors_zeroes_are_null(tmp_path: Path) -> None:
    raw = json.loads(PREDECESSOR.read_text())
    raw["expert_activation"] = dict.fromkeys(raw["expert_activation"], 0)
    copy = tmp_path / PREDECESSOR.name
    copy.write_text(json.dumps(raw))
    with pytest.raises(ResultError, match=r"metadata_gsm8k_20260105_101112\.json is not beside it"):
        read_tool_file(copy)
    beside = PREDECESSOR.with_name("metadata_gsm8k_20260105_101112.json")
    (tmp_path / beside.name).write_bytes(beside.read_bytes())
    (reading,) = read_tool_file(copy)
    assert value(reading, "decode_activated_experts") is None


@pytest.mark.parametrize("data", [b"", b"[1]", b"not json", b'{"a": 1}', b'{"a": 1} nonsense', b"\xff"])
def test_a_file_of_no_known_tool_is_refused_by_name(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "strange.json"
    path.write_bytes(data)
    with pytest.raises(ResultError, match=r"strange\.json: "):
        read_tool_file(path)


@pytest.mark.parametrize("field", ["request_rate", "total_input_tokens", "completed"])
def test_a_file_that_lacks_what_its_tool_writes_is_refused(field: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="not as its tool writes it"):
        read_tool_file(changed(VLLM_CLOSED, tmp_path / "cut.json", **{field: None}))


@pytest.mark.parametrize("path", [VLLM_CLOSED, SGLANG_CLOSED, OLLAMA, PREDECESSOR])
def test_no_file_is_claimed_by_two_tools(path: Path) -> None:
    record = json.loads(path.read_text() if path == PREDECESSOR else path.read_text().splitlines()[-1])
    assert sum(tool.wrote(record) for tool in TOOLS.values()) == 1


def test_names_that_differ_are_told_and_numbers_of_devices_refused() -> None:
    readings = read_tool_file(PREDECESSOR)
    result = build_result(parse_report(json.dumps(report(points=None))), readings)
    assert "engine: the report says MoE-Gen, a file says sglang" in result.warnings
    assert result.engine.version is None
    eight = report(points=None, hardware={"device": "h100-sxm-80gb", "num_devices": 8})
    with pytest.raises(ResultError, match="num_devices: the report says 8, a file says 2"):
        build_result(parse_report(json.dumps(eight)), readings)


def test_two_scores_of_one_task_are_two_results() -> None:
    (reading,) = read_tool_file(PREDECESSOR)
    assert reading.accuracy is not None
    other = replace(reading, accuracy=reading.accuracy.model_copy(update={"value": 0.5}))
    about = parse_report(json.dumps(report(points=None)))
    assert len(build_result(about, [reading, reading]).accuracy) == 1
    with pytest.raises(ResultError, match="two scores of one task"):
        build_result(about, [reading, other])
