"""What each device holds sums to the whole; what crosses a link is what is not resident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidInputError, TraceError
from moe_cap.metrics.bytes_and_flops import step_bytes
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.metrics.residency import cache_bytes, device_bytes, offload_bytes, offload_bytes_whole_layers
from moe_cap.precision import stored_bytes, uniform_storage
from moe_cap.routing import decode_step, with_all_experts, with_uniform_routing
from tests.architecture.configs import TINY

BF16 = uniform_storage("bf16")
NAMES = ("qwen3_moe", "deepseek_v3", "gpt_oss", "mixtral", "llama-tied-mha", "nemotron_h", "gemma4_text-dense")


@pytest.mark.parametrize("name", NAMES)
def test_one_device_holds_every_stored_byte(name: str) -> None:
    arch = parse_config(TINY[name])
    (only,) = device_bytes(arch, BF16, Parallelism())
    assert only.total == stored_bytes(arch, BF16)


@pytest.mark.parametrize("name", NAMES)
@given(pp=st.integers(1, 4))
def test_stages_sum_to_the_whole(name: str, pp: int) -> None:
    arch = parse_config(TINY[name])
    held = sum(rank.total for rank in device_bytes(arch, BF16, Parallelism(pp=pp)))
    tied_twice = arch.embedding[0].numel * 2 if arch.tied and pp > 1 else 0
    assert held == stored_bytes(arch, BF16) + tied_twice


@pytest.mark.parametrize("layout", [Parallelism(tp=2), Parallelism(ep=2), Parallelism(tp=2, ep=2), Parallelism(dp=2)])
def test_every_expert_is_held_once_whatever_the_layout(layout: Parallelism) -> None:
    arch = parse_config(TINY["qwen3_moe"])
    (whole,) = device_bytes(arch, BF16, Parallelism())
    assert sum(rank.experts for rank in device_bytes(arch, BF16, layout)) == whole.experts


def test_data_parallel_ranks_each_hold_the_rest() -> None:
    arch = parse_config(TINY["qwen3_moe"])
    (whole,) = device_bytes(arch, BF16, Parallelism())
    assert {rank.rest for rank in device_bytes(arch, BF16, Parallelism(dp=4, ep=4))} == {whole.rest}


def test_more_stages_than_layers_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        device_bytes(parse_config(TINY["qwen3_moe"]), BF16, Parallelism(pp=5))
    for wrong in ({"tp": 0}, {"ep": 3, "tp": 2}, {"pp": -1}):
        with pytest.raises(InvalidInputError):
            Parallelism(**wrong)


def test_windows_and_states_bound_the_cache() -> None:
    sliding, hybrid = parse_config(TINY["mistral"]), parse_config(TINY["jamba"])
    assert cache_bytes(sliding, BF16, (16,)) == cache_bytes(sliding, BF16, (5000,))
    states = hybrid.state_bytes(BF16.state, BF16.plain)
    assert cache_bytes(hybrid, BF16, (10, 20)) == 2 * states + 30 * hybrid.kv_bytes_per_token(BF16.kv)


@given(share=st.floats(0, 1), batch=st.integers(1, 16))
def test_offload_is_the_share_of_used_experts_that_is_absent(share: float, batch: int) -> None:
    arch = parse_config(TINY["qwen3_moe"])
    step = with_uniform_routing(decode_step((9,) * batch), arch)
    read = step_bytes(arch, step, BF16).experts
    assert offload_bytes(arch, step, BF16, share) == pytest.approx((1 - share) * read)
    assert offload_bytes(arch, step, BF16, share) <= offload_bytes_whole_layers(arch, BF16, 0)


def test_fetching_whole_layers_moves_every_expert() -> None:
    arch = parse_config(TINY["qwen3_moe"])
    step = with_all_experts(decode_step((9,)), arch)
    assert offload_bytes_whole_layers(arch, BF16, 0) == step_bytes(arch, step, BF16).experts
    assert offload_bytes_whole_layers(arch, BF16, len(arch.moe_layers)) == 0
    with pytest.raises(InvalidInputError):
        offload_bytes_whole_layers(arch, BF16, 99)
    with pytest.raises(InvalidInputError):
        offload_bytes(arch, step, BF16, 1.5)
    with pytest.raises(TraceError):
        offload_bytes(arch, decode_step((9,)), BF16, 0.5)
