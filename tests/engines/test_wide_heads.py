"""The widened model is the shipped one."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.engines.conftest import SHIPPED
from tests.engines.wide_heads import widen_heads


def test_wide_heads_compute_what_narrow_ones_did(tmp_path: Path) -> None:
    wide = widen_heads(SHIPPED, tmp_path / SHIPPED.name)
    ids = torch.randint(3, 100, (4, 60), generator=torch.Generator().manual_seed(0))
    logits = []
    for folder in (SHIPPED, wide):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.inference_mode():
            logits.append(model(ids).logits)
    assert model.config.head_dim == 32
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=2e-3)
