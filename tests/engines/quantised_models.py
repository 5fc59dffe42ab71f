"""Small random MoEs as quantisers store them, for servers that load a checkpoint as it is.

Values are rounded to the nearest code, so the model says what its plain twin says, but for the rounding. The layouts
are those of compressed-tensors (pack_quantized and int_quantized) and of DeepSeek-V3's fp8.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

GROUP, BLOCK = 32, 32
Tensors = dict[str, torch.Tensor]


def int8_per_row(name: str, weight: torch.Tensor) -> Tensors:
    scale = (weight.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16)
    codes = (weight / scale.float()).round().clamp(-128, 127).to(torch.int8)
    return {f"{name}.weight": codes, f"{name}.weight_scale": scale}


def int4_grouped(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    groups = weight.reshape(rows, columns // GROUP, GROUP)
    scale = (groups.abs().amax(2) / 7).to(torch.bfloat16)
    codes = (groups / scale.float()[..., None]).round().clamp(-8, 7).to(torch.int32).reshape(rows, columns // 8, 8) + 8
    packed = (codes << torch.arange(0, 32, 4, dtype=torch.int32)).sum(2, dtype=torch.int32)
    return {
        f"{name}.weight_packed": packed,
        f"{name}.weight_scale": scale,
        f"{name}.weight_shape": torch.tensor([rows, columns]),
    }


def fp8_blocks(name: str, weight: torch.Tensor) -> Tensors:
    rows, columns = weight.shape
    blocks = weight.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
    return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale.float()}


def _compressed(packing: str, weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "format": packing}
    return {"quant_method": "compressed-tensors", "format": packing, "config_groups": {"group_0": group}}


INT8 = _compressed(
    "int-quantized",
    {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
    {"num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True},
)
INT4 = _compressed(
    "pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": True}, None
)
FP8 = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic", "fmt": "e4m3"}
LAYOUTS: dict[str, tuple[Callable[[str, torch.Tensor], Tensors], dict[str, Any]]] = {
    "int8": (int8_per_row, INT8), "int4": (int4_grouped, INT4), "fp8": (fp8_blocks, FP8),
}  # fmt: skip


def write_quantised(plain: Path, folder: Path, precision: str, *, experts: bool) -> Path:
    """A plain checkpoint in one file once more, its projections in `precision`.

    Args:
        experts: whether the experts' are packed too; else those of attention alone.
    """
    layout, section = LAYOUTS[precision]
    shutil.copytree(plain, folder)
    (source,) = folder.glob("*.safetensors")
    packed: Tensors = {}
    for name, tensor in load_file(source).items():
        module = name.removesuffix(".weight")
        chosen = module.endswith("_proj") and (experts or "self_attn" in module)
        packed |= layout(module, tensor.float()) if chosen else {name: tensor}
    source.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file(packed, folder / "model.safetensors", metadata={"format": "pt"})
    left = ["lm_head", "re:.*mlp.gate$", *([] if experts else ["re:.*mlp.experts.*"])]
    if precision == "fp8":
        left = [name.removeprefix("re:.*").removesuffix("$").removesuffix(".*") for name in left]
    key = "modules_to_not_convert" if precision == "fp8" else "ignore"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = section | {key: left}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_unpacked(quantised: Path, folder: Path) -> Path:
    """The plain twin of an int8 or int4 checkpoint: every code times its scale, in bf16."""
    shutil.copytree(quantised, folder)
    stored = load_file(folder / "model.safetensors")
    plain: Tensors = {}
    for name, tensor in stored.items():
        module, _, leaf = name.rpartition(".")
        scale = stored.get(f"{module}.weight_scale")
        if leaf == "weight_packed" and scale is not None:
            codes = torch.stack([(tensor >> bit) & 15 for bit in range(0, 32, 4)], 2) - 8
            numbers = codes.reshape(*scale.shape, GROUP) * scale.float()[..., None]
            plain[f"{module}.weight"] = numbers.reshape(len(codes), -1).bfloat16()
        elif leaf == "weight" and scale is not None:
            plain[name] = (tensor.float() * scale.float()).bfloat16()
        elif leaf not in {"weight_scale", "weight_shape"}:
            plain[name] = tensor
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["quantization_config"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
