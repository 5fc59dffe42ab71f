"""The program that `benchmarks/dram_bytes.py` runs inside vLLM, on a processor: everything but the counters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import dram_bytes
from moe_cap.architecture import parse_config
from moe_cap.measure.engines.registry import load_engine
from moe_cap.metrics.bytes_and_flops import step_bytes
from moe_cap.precision import parse_quantization
from moe_cap.routing import decode_step, with_all_experts

SHAPE: dict[str, object] = {
    "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "torch_dtype": "bfloat16",
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "vocab_size": 512, "num_experts": 8, "num_experts_per_tok": 2,
    "max_position_embeddings": 512, "tie_word_embeddings": False, "eos_token_id": 0,
}  # fmt: skip


@pytest.mark.skipif(not load_engine("vllm").probe().installed, reason="vLLM is not installed")
def test_single_steps_are_formed_recorded_and_accounted(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "tiny.json").write_text(json.dumps(SHAPE))
    places = ("--shapes", str(tmp_path / "shapes"), "--scratch", str(tmp_path), "--output", str(tmp_path / "out"))
    sizes = ("--batches", "1,4", "--context", "32", "--prefill", "16")
    assert dram_bytes.main(["--rehearsal", *places, *sizes]) == 0
    rows = json.loads((tmp_path / "out" / "tiny.json").read_text())["rows"]
    assert [(row["kind"], row["batch"], row["new_tokens"]) for row in rows] == [
        ("decode", 1, 1), ("decode", 4, 4), ("prefill", 1, 16), ("prefill", 4, 64),
    ]  # fmt: skip
    assert rows[0]["distinct_experts_per_layer"] == 2
    arch = parse_config(SHAPE)
    most = step_bytes(arch, with_all_experts(decode_step([36], None), arch), parse_quantization(SHAPE)).total_read
    assert 0 < rows[0]["predicted_bytes"] < most
    assert {row["verdict"] for row in rows} == {"not counted"}
