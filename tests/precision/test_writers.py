"""The estimate equals the bytes that the quantisers themselves write, beside the layouts in `layouts.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    apply_quantization_config,
)
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES, preset_name_to_scheme
from safetensors.torch import save_file
from torch import nn

from moe_cap.architecture import Architecture, parse_config
from moe_cap.precision import parse_quantization, read_checkpoint, stored_bytes

pytestmark = pytest.mark.model
CONFIG: dict[str, Any] = {
    "model_type": "mixtral", "vocab_size": 96, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 3, "num_experts_per_tok": 2,
    "torch_dtype": "bfloat16",
}  # fmt: skip
IGNORED = ["lm_head", "re:.*block_sparse_moe.gate$"]


def module_tree(arch: Architecture) -> nn.Module:
    """A Linear for every matrix under its name in the checkpoint, every expert apart; a parameter for all the rest."""
    root = nn.Module()
    for _, path, weight, copies in arch.weights():
        for copy in range(copies):
            *folders, owner, leaf = path.replace(".experts.0.", f".experts.{copy}.").split(".")
            place = root
            for folder in folders:
                if folder not in dict(place.named_children()):
                    place.add_module(folder, nn.Module())
                place = place.get_submodule(folder)
            if weight.is_matrix:
                rows, columns = weight.shape
                place.add_module(owner, nn.Linear(columns, rows, bias=False, dtype=torch.bfloat16))
            else:
                holder = nn.Module()
                holder.register_parameter(leaf, nn.Parameter(torch.ones(weight.shape, dtype=torch.bfloat16)))
                place.add_module(owner, holder)
    return root


def written(scheme: QuantizationScheme, folder: Path) -> tuple[int, dict[str, Any]]:
    """Bytes of what compressed-tensors saves, and the section of config.json that goes with it."""
    model = module_tree(parse_config(CONFIG))
    apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=IGNORED))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    section = compressor.quantization_config.model_dump(mode="json")
    return read_checkpoint(folder).num_bytes, section | {"quant_method": "compressed-tensors"}


@pytest.mark.parametrize("preset", sorted(set(PRESET_SCHEMES) - {"UNQUANTIZED"}))
def test_presets_of_compressed_tensors(preset: str, tmp_path: Path) -> None:
    in_file, section = written(preset_name_to_scheme(preset, ["Linear"]), tmp_path)
    assert stored_bytes(parse_config(CONFIG), parse_quantization(CONFIG | {"quantization_config": section})) == in_file


@pytest.mark.parametrize(
    ("preset", "dtype"), [("W4A16", "bf16"), ("W4A4", "int4"), ("W8A8", "int8"), ("FP8", "fp8"), ("NVFP4", "fp4"),
                          ("NVFP4A16", "bf16"), ("MXFP6A8", "fp8"), ("W4AFP8", "fp8")],
)  # fmt: skip
def test_a_scheme_computes_in_the_format_of_its_activations(preset: str, dtype: str, tmp_path: Path) -> None:
    _, section = written(preset_name_to_scheme(preset, ["Linear"]), tmp_path)
    assert parse_quantization(CONFIG | {"quantization_config": section}).compute_dtype == dtype


SCHEMES: dict[str, dict[str, Any]] = {
    "int4, groups of 32, zero points": {"num_bits": 4, "group_size": 32, "strategy": "group", "symmetric": False},
    "int4, groups of 32, rows by activation": {
        "num_bits": 4, "group_size": 32, "strategy": "group", "actorder": "weight",
    },
    "int4 per row": {"num_bits": 4, "strategy": "channel"},
    "int8, groups of 64": {"num_bits": 8, "group_size": 64, "strategy": "group"},
    "int8 per tensor": {"num_bits": 8, "strategy": "tensor"},
    "fp8, blocks of 64 x 32": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [64, 32]},
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_of_compressed_tensors(name: str, tmp_path: Path) -> None:
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**SCHEMES[name]))
    in_file, section = written(scheme, tmp_path)
    assert stored_bytes(parse_config(CONFIG), parse_quantization(CONFIG | {"quantization_config": section})) == in_file
