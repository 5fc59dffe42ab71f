"""The estimate equals the bytes in the file, for models saved in each format."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from moe_cap.architecture import parse_config
from moe_cap.precision import parse_quantization, read_checkpoint, stored_bytes, uniform_storage
from tests.architecture.configs import TINY
from tests.precision.layouts import COMPUTE, DIALECTS

pytestmark = pytest.mark.model
EVEN: dict[str, Any] = {
    "model_type": "qwen3_moe", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "moe_intermediate_size": 64, "num_experts": 4,
    "num_experts_per_tok": 2, "mlp_only_layers": [2], "torch_dtype": "bfloat16",
}  # fmt: skip
FAMILIES = (
    "llama-tied-mha", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2-lite", "deepseek_v3", "gpt_oss",
    "qwen3_next", "kimi_linear", "jamba", "nemotron_h-latent", "granitemoehybrid", "lfm2_moe", "gemma4_text-dense",
)  # fmt: skip


def saved(config: dict[str, Any], folder: Path) -> Path:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).to(torch.bfloat16)
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if re.search(r"e_score_correction_bias|expert_bias", name):
            tensor.data = tensor.data.float()
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_bf16_estimate_equals_the_bytes_that_transformers_saves(name: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(saved(TINY[name], tmp_path))
    assert stored_bytes(parse_config(TINY[name]), uniform_storage("bf16")) == checkpoint.num_bytes


@pytest.mark.parametrize("name", ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_tensors_are_named_as_in_the_checkpoint(name: str, tmp_path: Path) -> None:
    ours = {path for _, path, _, _ in parse_config(TINY[name]).weights()}
    assert ours <= set(read_checkpoint(saved(TINY[name], tmp_path)).tensors)


def is_skipped(module: str, quantization: dict[str, Any]) -> bool:
    """An independent reading of the lists of these small configs."""
    listed = [
        *quantization.get("modules_to_not_convert", []),
        *quantization.get("ignore", []),
        *quantization.get("exclude_modules", []),
    ]
    for entry in listed:
        if entry.startswith("re:"):
            if re.match(entry[3:], module):
                return True
        elif fnmatch.fnmatch(module, entry) or module.startswith(entry + "."):
            return True
    return False


@pytest.mark.parametrize("dialect", DIALECTS)
def test_quantised_estimate_equals_the_bytes_in_the_file(dialect: str, tmp_path: Path) -> None:
    layout, quantization = DIALECTS[dialect]
    plain = load_file(saved(EVEN, tmp_path / "plain") / "model.safetensors")
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in plain.items():
        module = name.removesuffix(".weight")
        linear = tensor.dim() == 2 and module.endswith("_proj") and not is_skipped(module, quantization)
        packed |= layout(module, *tensor.shape) if linear else {name: tensor}
    save_file(packed, tmp_path / "model.safetensors")
    plan = parse_quantization(EVEN | {"quantization_config": quantization})
    assert stored_bytes(parse_config(EVEN), plan) == read_checkpoint(tmp_path / "model.safetensors").num_bytes
    assert plan.compute_dtype == COMPUTE[dialect]
