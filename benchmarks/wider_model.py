"""The shipped model made wider without changing what it computes, for engines and clocks that a narrow one starves.

    .venv/bin/python -m benchmarks.wider_model FOLDER

Heads: some engines have no kernel for narrow ones. A head of d dimensions becomes one of 2d in which every other rotary
pair is zero. The pairs that stay keep their frequencies, for theta^(-2 (2i) / 2d) = theta^(-2i / d). Half of the values
being zero halves the mean square that the norms of queries and keys divide by, and attention divides by sqrt(2d): the
weights of those norms take up both. What is left of a difference is that norm's epsilon, a millionth.

Experts: a token of the shipped model takes a third of a millisecond, of which a hundredth is less than the noise of any
clock. Experts get inner dimensions whose weights are all zero: silu(0) * 0 = 0, so nothing is added to their outputs,
and engines read and multiply them like any others.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "cap-tiny-moe"
EXPERT_WIDTH = 8192
"""A hundred million parameters: a token takes some milliseconds on a processor."""

Rewrite = Callable[[str, torch.Tensor], torch.Tensor]


def widen_heads(source: Path, target: Path) -> Path:
    """Write the Qwen3-MoE model in `source` with heads twice as wide, in fp32."""
    width = json.loads((source / "config.json").read_text())["head_dim"]
    return _write(source, target, {"head_dim": 2 * width}, lambda name, tensor: _wide_head(name, tensor, width))


def widen_experts(source: Path, target: Path, width: int = EXPERT_WIDTH) -> Path:
    """Write the Qwen3-MoE model in `source` with experts of so many inner dimensions, in fp32."""
    return _write(source, target, {"moe_intermediate_size": width}, lambda name, tensor: _padded(name, tensor, width))


def write_wider(target: Path) -> Path:
    """The shipped model with both; kept where it has been written before."""
    if not target.is_dir():
        half, whole = target.with_name(f"{target.name}-heads"), target.with_name(f"{target.name}-unfinished")
        for left in (half, whole):
            shutil.rmtree(left, ignore_errors=True)
        widen_experts(widen_heads(SHIPPED, half), whole).rename(target)
        shutil.rmtree(half)
    return target


def _write(source: Path, target: Path, changed: dict[str, int], rewrite: Rewrite) -> Path:
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text()) | changed | {"dtype": "float32"}
    (target / "config.json").write_text(json.dumps(config))
    tensors = load_file(target / "model.safetensors")
    wide = {name: rewrite(name, tensor.float()) for name, tensor in tensors.items()}
    save_file(wide, target / "model.safetensors", {"format": "pt"})
    return target


def _part(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def _wide_head(name: str, tensor: torch.Tensor, width: int) -> torch.Tensor:
    part = _part(name)
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


def _padded(name: str, tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Matrices of experts, [inner, hidden] or, for the last, [hidden, inner], with zeros up to `width` inner ones."""
    if ".mlp.experts." not in name:
        return tensor
    behind = _part(name) == "down_proj"
    missing = width - tensor.shape[1 if behind else 0]
    return torch.nn.functional.pad(tensor, (0, missing) if behind else (0, 0, 0, missing))


if __name__ == "__main__":
    write_wider(Path(sys.argv[1]))
