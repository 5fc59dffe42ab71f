"""FLOPs equal torch's own counter on a small instance; the KV cache equals the size of the cache's tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

from moe_cap.architecture import Architecture, Attention, LatentAttention, parse_config
from moe_cap.architecture.reach import Full
from moe_cap.metrics.bytes_and_flops import step_flops
from moe_cap.routing import prefill_step
from tests.architecture.configs import TINY

pytestmark = pytest.mark.model
TOKENS = 12


def small_model(config: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), attn_implementation="eager")
    model.set_experts_implementation("eager")
    return model.eval()


def counted_flops(model: torch.nn.Module) -> int:
    """Everything that torch multiplies, without the rotary tables that some families compute as a matrix product."""
    ids = torch.arange(TOKENS)[None] % 90
    with torch.no_grad(), FlopCounterMode(display=False, depth=4) as counter:
        model(input_ids=ids, use_cache=False)
    counts = counter.get_flop_counts()
    rotary = sum(sum(ops.values()) for module, ops in counts.items() if module.endswith("rotary_emb"))
    return int(counter.get_total_flops() - rotary)


def with_full_squares(arch: Architecture) -> float:
    """Score FLOPs of an eager kernel: every token against every token, masked or not."""
    total = 0
    for layer in arch.layers:
        assert isinstance(layer.mixer, Attention | LatentAttention)
        total += TOKENS * replace(layer.mixer, reach=Full()).score_flops(TOKENS, 1)
    return total


@pytest.mark.parametrize("name", TINY)
def test_flops_equal_torchs_counter(name: str) -> None:
    arch = parse_config(TINY[name])
    step = replace(prefill_step((TOKENS,)), logit_rows=TOKENS)
    ours = step_flops(arch, step)
    assert counted_flops(small_model(TINY[name])) == ours.total - ours.score + with_full_squares(arch)


@pytest.mark.parametrize("name", TINY)
def test_cache_equals_its_tensors(name: str) -> None:
    arch, model = parse_config(TINY[name]), small_model(TINY[name])
    with torch.no_grad():
        cache = model(input_ids=torch.arange(6)[None], use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == sum(layer.mixer.kv_cached(6) for layer in arch.layers) == 6 * arch.kv_elements_per_token()
