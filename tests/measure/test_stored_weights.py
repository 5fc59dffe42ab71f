"""A quantised checkpoint is served as it is stored, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from moe_cap.errors import ConfigError, InvalidRunError, SubmissionError
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.sglang import loaded_method
from moe_cap.measure.engines.stored_weights import check_method, effective_plan, held_bytes, launch_dtype
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.precision import uniform_storage
from moe_cap.result import EngineRecord
from tests.precision.layouts import DIALECTS

SERVERS = ("vllm", "sglang")
STORED = {
    "fp8": ("fp8", "fp8"), "mxfp4": ("mxfp4", "mxfp4"), "gptq": ("int4", "auto_gptq"), "awq": ("int4", "awq_marlin"),
    "int-quantized": ("int8", "compressed-tensors"), "nvfp4-pack-quantized": ("nvfp4", "compressed-tensors"),
    "modelopt-nvfp4": ("nvfp4", "modelopt_fp4"),
}  # fmt: skip
"""A dialect's precision by the accounting, and what a server calls its method."""
SECTIONS: dict[str, dict[str, Any]] = {"mxfp4": {"quant_method": "mxfp4"}} | {
    name: section for name, (_, section) in DIALECTS.items()
}


def files_of(dialect: str | None, dtype: str = "bfloat16") -> ModelFiles:
    section = {} if dialect is None else {"quantization_config": SECTIONS[dialect]}
    return ModelFiles("some-moe", "0", Path("/models/some-moe"), {"torch_dtype": dtype} | section, ())


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize("dialect", STORED)
def test_a_checkpoint_is_served_in_the_precision_that_it_is_stored_in(engine: str, dialect: str) -> None:
    precision, _ = STORED[dialect]
    assert precision in ENGINES[engine].precisions
    argv = load_engine(engine).launch_spec(files_of(dialect, "float16"), precision).argv
    assert argv[argv.index("--dtype") + 1] == "float16", "the dtype of what is not quantised"
    assert "--quantization" not in argv, "the server finds its layout by itself"


@pytest.mark.parametrize("engine", SERVERS)
@pytest.mark.parametrize(
    ("dialect", "asked", "said"),
    [("fp8", "bf16", "stored in fp8"), ("gptq", "fp8", "stored in int4"), (None, "fp8", "packs nothing")],
)
def test_another_precision_than_the_stored_one_is_refused(
    engine: str, dialect: str | None, asked: str, said: str
) -> None:
    with pytest.raises(SubmissionError, match=said) as refused:
        load_engine(engine).launch_spec(files_of(dialect), asked)
    assert refused.value.field == "precision"


def test_a_plain_checkpoint_is_cast_to_what_was_asked() -> None:
    assert launch_dtype("vllm", files_of(None, "float16"), "fp32") == "float32"


def test_a_checkpoint_that_keeps_the_rest_in_no_usual_dtype_is_refused() -> None:
    with pytest.raises(ConfigError, match="no server computes"):
        launch_dtype("vllm", files_of("fp8", "float8_e4m3fn"), "fp8")


@pytest.mark.parametrize("dialect", STORED)
def test_the_method_that_the_server_tells_is_held_against_the_request(dialect: str) -> None:
    precision, method = STORED[dialect]
    check_method("vllm", files_of(dialect), precision, method)
    with pytest.raises(InvalidRunError, match="does not say that it took"):
        check_method("vllm", files_of(dialect), precision, None)
    with pytest.raises(InvalidRunError, match="not known here"):
        check_method("vllm", files_of(dialect), precision, "int3_of_tomorrow")


def test_a_server_that_runs_another_quantisation_is_refused() -> None:
    with pytest.raises(InvalidRunError, match="means int4 or int8, and fp8 was asked"):
        check_method("vllm", files_of("fp8"), "fp8", "awq_marlin")
    check_method("vllm", files_of(None), "bf16", None)
    with pytest.raises(InvalidRunError, match="leave that argument out"):
        check_method("vllm", files_of(None), "bf16", "fp8_per_tensor")


def test_held_bytes_are_the_files_own_where_they_are_quantised(tmp_path: Path) -> None:
    save_file({"a.weight": torch.zeros(8, 4, dtype=torch.int8), "b": torch.zeros(3)}, tmp_path / "model.safetensors")
    weights = (tmp_path / "model.safetensors",)
    packed = ModelFiles("m", "0", tmp_path, {"quantization_config": SECTIONS["int-quantized"]}, weights)
    assert held_bytes(packed, "int8") == 8 * 4 + 3 * 4
    assert held_bytes(ModelFiles("m", "0", tmp_path, {}, weights), "bf16") == 2 * (8 * 4 + 3)


def test_the_plan_takes_the_cache_and_the_arithmetic_that_the_engine_said() -> None:
    record = EngineRecord(
        name="vLLM", version="1", weights_dtype="fp8", kv_dtype="fp8_e4m3", compute_dtype="bf16", arguments={}
    )
    plan = effective_plan(uniform_storage("fp8"), record, weight_only=False)
    assert (plan.kv.bits, plan.compute_dtype) == (8, "fp8")
    assert effective_plan(uniform_storage("fp8"), record, weight_only=True).compute_dtype == "bf16"


def test_sglang_tells_the_method_of_the_weights_that_it_loaded() -> None:
    line = "[2026-11-22] Load weight end. elapsed=0.13 s, type=Qwen3MoeForCausalLM, quant=fp8, fmt=e4m3, avail mem=1 GB"
    assert loaded_method(line) == "fp8"
    assert loaded_method(line.replace("quant=fp8, fmt=e4m3, ", "")) is None


def test_hf_quant_config_beside_a_silent_config_counts(tmp_path: Path) -> None:
    apart = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(apart), encoding="utf-8")
    files = ModelFiles("some-moe", "0", tmp_path, {"torch_dtype": "bfloat16"}, ())
    assert launch_dtype("vllm", files, "nvfp4") == "bfloat16"
    with pytest.raises(SubmissionError, match="stored in nvfp4"):
        launch_dtype("vllm", files, "bf16")
