"""Bits per value as the formats define them; dialects and lists of the published configs; damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.architecture import Part, parse_config
from moe_cap.errors import ConfigError, UnknownPrecisionError
from moe_cap.precision import (
    parse_quantization,
    plain_format,
    read_checkpoint,
    storage_of,
    stored_bytes,
    uniform_storage,
)
from moe_cap.precision.formats import fp8_block, int4_grouped, mxfp4, nvfp4
from moe_cap.precision.names import ModuleNames
from moe_cap.precision.plan import UNIFORM
from moe_cap.precision.quantization import parse_hf_quant_config
from tests.architecture.configs import TINY, published


def test_bits_per_value() -> None:
    shape = (1024, 2048)
    bits = {name: made.bytes_of(shape) * 8 / (1024 * 2048) for name, made in {
        "mxfp4": mxfp4(), "int4": int4_grouped(128), "int4z": int4_grouped(128, zero_bits=4), "fp8": fp8_block(),
    }.items()}  # fmt: skip
    assert bits == {"mxfp4": 4.25, "int4": 4 + 16 / 128, "int4z": 4 + 20 / 128, "fp8": 8 + 32 / (128 * 128)}
    assert nvfp4().bytes_of(shape) == 1024 * 2048 // 2 + 1024 * 2048 // 16 + 4


@given(rows=st.integers(1, 300), columns=st.integers(1, 300), name=st.sampled_from(sorted(UNIFORM)))
def test_a_tensor_is_never_smaller_than_its_values(rows: int, columns: int, name: str) -> None:
    plan = uniform_storage(name)
    made = plan.rules[0].format if plan.rules else plan.plain
    assert made.bytes_of((rows, columns)) * 8 >= rows * columns * made.bits
    assert made.bytes_of((rows + 1, columns)) > made.bytes_of((rows, columns))


@pytest.mark.parametrize("name", TINY)
def test_narrower_precisions_store_less(name: str) -> None:
    if name == "deepseek_v4":
        pytest.skip("a table of 64-bit ids outweighs the matrices of so small a model")
    arch = parse_config(TINY[name])
    sizes = [stored_bytes(arch, uniform_storage(precision)) for precision in ("fp32", "bf16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)


def test_unknown_names_are_refused() -> None:
    for name in ("int3", "", "bf17"):
        with pytest.raises(UnknownPrecisionError):
            uniform_storage(name)
        with pytest.raises(UnknownPrecisionError):
            plain_format(name)
    with pytest.raises(UnknownPrecisionError, match="routed experts only"):
        storage_of(parse_config(TINY["llama"]), "mxfp4")
    assert storage_of(parse_config(TINY["mixtral"]), "mxfp4").compute_dtype == "bf16"


@pytest.mark.parametrize(
    "section",
    [
        {"quant_method": "alchemy"},
        {"quant_method": "gptq"},
        {"quant_method": "gptq", "bits": "four"},
        {"quant_method": "modelopt", "quant_algo": "FP3"},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 3, "type": "float"}}}},
        {"quant_method": "fp8", "modules_to_not_convert": ["re:("]},
        {"quant_method": 7},
        "fp8",
    ],
)  # fmt: skip
def test_a_quantisation_that_cannot_be_understood_is_a_named_error(section: Any) -> None:
    with pytest.raises((ConfigError, UnknownPrecisionError)):
        parse_quantization({"quantization_config": section})


@pytest.mark.parametrize(
    ("name", "precision", "kv", "compute", "gigabytes"),
    [
        ("openai--gpt-oss-120b", "mxfp4", "bf16", "bf16", 65.25),  # index.json of the checkpoint: 65.25 GB
        ("moonshotai--Kimi-K2.5", "int4", "bf16", "bf16", None),
        ("nvidia--GLM-5.1-NVFP4", "nvfp4", "fp8", "fp4", None),
        ("nvidia--Qwen3.6-35B-A3B-NVFP4", "nvfp4", "bf16", "bf16", None),
        ("deepseek-ai--DeepSeek-V4-Flash", "mxfp4", "bf16", "fp8", None),
        ("nvidia--MiniMax-M3-NVFP4", "nvfp4", "bf16", "fp4", None),
        ("Qwen--Qwen3-30B-A3B", "bf16", "bf16", "bf16", 61.06),
    ],
)
def test_published_dialects(name: str, precision: str, kv: str, compute: str, gigabytes: float | None) -> None:
    if name not in published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    plan = parse_quantization(published()[name])
    assert (plan.name, plan.kv.name, plan.compute_dtype) == (precision, kv, compute)
    size = stored_bytes(parse_config(published()[name]), plan)
    if gigabytes is not None:
        assert size / 1e9 == pytest.approx(gigabytes, abs=0.005)


@pytest.mark.parametrize("name", published())
def test_every_published_config_has_a_structure_and_a_storage(name: str) -> None:
    arch, plan = parse_config(published()[name]), parse_quantization(published()[name])
    full = stored_bytes(arch, uniform_storage("fp32"))
    assert 0 < stored_bytes(arch, plan) < full
    if plan.rules:
        experts = {plan.format_of(part, path.rpartition(".")[0], w).name for part, path, w, _ in arch.weights()
                   if part is Part.EXPERTS and w.is_matrix}  # fmt: skip
        if experts:
            assert plan.name in experts, f"the routed experts are stored as {experts}"


def test_hf_quant_config_says_what_config_json_leaves_out() -> None:
    quantization = {
        "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    }
    plan = parse_hf_quant_config(TINY["mixtral"], quantization)
    assert (plan.name, plan.kv.name, plan.compute_dtype) == ("nvfp4", "fp8", "fp4")


def test_lists_of_modules() -> None:
    names = ModuleNames(
        ["lm_head", "model.layers.0.self_attn*", "re:.*mlp\\.(gate|up)_proj.*", "mlp.gate", "*.ffn.x.*"]
    )
    for module in (
        "lm_head", "model.layers.0.self_attn.q_proj", "model.language_model.layers.0.self_attn.o_proj",
        "model.layers.4.mlp.gate_proj", "model.layers.9.mlp.gate", "layers.3.ffn.x.w1",
    ):  # fmt: skip
        assert module in names, module
    for module in ("model.layers.1.self_attn.q_proj", "model.layers.4.mlp.experts.0.gate_proj", "model.layers.10.mlp"):
        assert module not in names, module


def damaged(folder: Path, content: bytes) -> Path:
    file = folder / "model.safetensors"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 1 << 40),
        struct.pack("<Q", 5) + b"{",
        struct.pack("<Q", 9) + b"not json!",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        struct.pack("<Q", 53) + b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[9,1]}}'[:53],
    ],
)
def test_a_damaged_file_is_a_named_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        read_checkpoint(damaged(tmp_path, content))


def test_a_file_that_was_cut_off_behind_its_header_is_a_named_error(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    whole = struct.pack("<Q", len(header)) + header + bytes(16)
    assert read_checkpoint(damaged(tmp_path, whole)).num_bytes == 16
    with pytest.raises(ConfigError, match="cut off"):
        read_checkpoint(damaged(tmp_path, whole[:-1]))


def test_an_index_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ConfigError, match="outside"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ConfigError):
        read_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="no safetensors"):
        read_checkpoint(tmp_path.parent)
