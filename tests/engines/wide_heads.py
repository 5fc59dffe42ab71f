"""The same model with attention heads of twice the width: for engines that have no kernel for narrow ones.

A head of d dimensions becomes one of 2d in which every other rotary pair is zero. The pairs that stay keep their
frequencies, for theta^(-2 (2i) / 2d) = theta^(-2i / d). Half of the values being zero halves the mean square that the
norms of queries and keys divide by, and attention divides by sqrt(2d): the weights of those norms take up both. What is
left of a difference is that norm's epsilon, a millionth.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def widen_heads(source: Path, target: Path) -> Path:
    """Write the Qwen3-MoE model in `source` with heads twice as wide, in fp32."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    width = config["head_dim"]
    config |= {"head_dim": 2 * width, "dtype": "float32"}
    (target / "config.json").write_text(json.dumps(config))
    tensors = {name: tensor.float() for name, tensor in load_file(target / "model.safetensors").items()}
    wide = {name: _widen(name, tensor, width) for name, tensor in tensors.items()}
    save_file(wide, target / "model.safetensors", {"format": "pt"})
    return target


def _widen(name: str, tensor: torch.Tensor, width: int) -> torch.Tensor:
    part = name.removesuffix(".weight").rpartition(".")[2]
    if part in {"q_proj", "k_proj", "v_proj"}:
        return _spread(tensor, width)
    if part == "o_proj":
        return _spread(tensor.T, width).T.contiguous()
    if part == "q_norm":
        return _spread(tensor, width)
    if part == "k_norm":
        return _spread(tensor, width) / math.sqrt(2)
    return tensor


def _spread(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of heads, [heads * width, ...], with a row of zeros behind each: [heads * 2 * width, ...].

    Rotary pairs are row i and row i + width / 2 of a head; they become rows 2i and 2i + width.
    """
    return torch.stack([rows, torch.zeros_like(rows)], dim=1).flatten(0, 1)
