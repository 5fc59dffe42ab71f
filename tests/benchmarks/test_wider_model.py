"""The widened model is the shipped one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.wider_model import SHIPPED, widen_experts, widen_heads


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@pytest.mark.model
@pytest.mark.parametrize(
    ("widen", "name", "width"),
    [(widen_heads, "head_dim", 32), (lambda *paths: widen_experts(*paths, width=48), "moe_intermediate_size", 48)],
    ids=["heads", "experts"],
)
def test_a_wider_model_computes_what_the_shipped_one_does(
    widen: Callable[[Path, Path], Path], name: str, width: int, tmp_path: Path
) -> None:
    wide = load(widen(SHIPPED, tmp_path / SHIPPED.name))
    ids = torch.randint(3, 100, (4, 60), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(wide(ids).logits, load(SHIPPED)(ids).logits, rtol=0, atol=2e-3)
    assert getattr(wide.config, name) == width
