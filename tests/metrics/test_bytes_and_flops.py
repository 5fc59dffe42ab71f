"""Bytes and FLOPs of steps against hardware counters, torch's FLOP counter, the cache's size, and their own laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import TraceError
from moe_cap.metrics.bytes_and_flops import (
    step_bytes,
    step_bytes_all_experts,
    step_bytes_paper,
    step_flops,
    step_flops_all_experts,
    step_flops_paper,
)
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import stored_bytes, uniform_storage
from moe_cap.routing import Step, StepKind, decode_step, prefill_step, with_all_experts, with_uniform_routing
from tests.architecture.configs import TINY, published

BF16 = uniform_storage("bf16")
OLMOE_1B_7B: dict[str, Any] = {
    "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_hidden_layers": 16, "vocab_size": 50304,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_experts": 64, "num_experts_per_tok": 8,
}  # fmt: skip
OLMOE = parse_config(OLMOE_1B_7B)
TINY_ARCHS = {name: parse_config(config) for name, config in TINY.items()}


@pytest.mark.parametrize(
    ("batch", "distinct", "counter_gb", "complete_off", "paper_off"),
    [(1, 8.0, 2.4277, -0.001, -0.088), (8, 42.6, 9.845, 0.002, -0.019), (64, 64.0, 18.070, -0.006, -0.017)],
)
def test_bytes_equal_the_dram_counters_of_an_h100(
    batch: int, distinct: float, counter_gb: float, complete_off: float, paper_off: float
) -> None:
    step = decode_step((517,) * batch, (distinct,) * 16)
    complete, paper = step_bytes(OLMOE, step, BF16).total_read, step_bytes_paper(OLMOE, step, BF16)
    assert complete / counter_gb / 1e9 - 1 == pytest.approx(complete_off, abs=0.0005)
    assert paper / counter_gb / 1e9 - 1 == pytest.approx(paper_off, abs=0.0006)


def arch_of(name: str) -> Architecture:
    if name not in published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    return parse_config(published()[name])


def test_mixtral_8x22b_needs_the_papers_bandwidth_at_batch_one() -> None:
    arch = arch_of("mistralai--Mixtral-8x22B-v0.1")
    parameters = arch.parameters()
    assert parameters.active * 2 / 0.1 == pytest.approx(0.78e12, rel=0.01)
    assert parameters.total * 2 / 0.1 == pytest.approx(2.82e12, rel=0.01)
    step = decode_step((1,), (2.0,) * 56)
    assert step_bytes(arch, step, BF16).total_read / 0.1 == pytest.approx(781e9, rel=0.02)


def test_deepseek_r1_needs_the_charts_bandwidth_with_all_experts() -> None:
    arch = arch_of("deepseek-ai--DeepSeek-R1")
    step = decode_step((1,))
    assert step_bytes_all_experts(arch, step, BF16).total_read / 0.1 == pytest.approx(13_574e9, rel=0.02)


@pytest.mark.parametrize("name", TINY_ARCHS)
@given(contexts=st.lists(st.integers(1, 600), min_size=1, max_size=6), data=st.data())
@settings(max_examples=15, deadline=None)
def test_activated_is_at_most_all_and_equal_when_every_expert_is_used(
    name: str, contexts: list[int], data: st.DataObject
) -> None:
    arch = TINY_ARCHS[name]
    used = tuple(float(data.draw(st.integers(moe.top_k, moe.num_experts))) for moe in arch.moe_blocks)
    step = decode_step(contexts, used)
    sparse, vanilla = step_bytes(arch, step, BF16), step_bytes_all_experts(arch, step, BF16)
    assert sparse.total_read <= vanilla.total_read
    assert step_bytes(arch, with_all_experts(step, arch), BF16) == vanilla
    assert step_flops(arch, step).total <= step_flops_all_experts(arch, step).total
    assert step_bytes_paper(arch, step, BF16) <= sparse.total_read
    assert step_flops_paper(arch, step) <= step_flops(arch, step).total


@pytest.mark.parametrize("name", [name for name in TINY_ARCHS if name != "llama4_text"])  # a chunk starts over
@given(contexts=st.lists(st.integers(1, 600), min_size=1, max_size=5), longer=st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_bytes_and_flops_grow_with_batch_and_context(name: str, contexts: list[int], longer: int) -> None:
    arch = TINY_ARCHS[name]
    base = with_uniform_routing(decode_step(contexts), arch)
    deeper = with_uniform_routing(decode_step([context + longer for context in contexts]), arch)
    wider = with_uniform_routing(decode_step([*contexts, 1]), arch)
    for count in (lambda step: step_bytes(arch, step, BF16).total_read, lambda step: step_flops(arch, step).total):
        assert count(base) <= count(deeper)
        assert count(base) < count(wider)


@pytest.mark.parametrize("name", TINY_ARCHS)
def test_one_decode_step_with_all_experts_reads_every_stored_weight_once(name: str) -> None:
    arch = TINY_ARCHS[name]
    read = step_bytes_all_experts(arch, decode_step((5,)), BF16)
    tables = [(weight, 8 if weight.dtype == "int64" else 2) for *_, weight, _ in arch.weights() if weight.lookup]
    unread = sum(weight.numel * width for weight, width in tables)
    rows = sum(weight.lookup * weight.numel // weight.shape[0] * width for weight, width in tables)
    head = arch.embedding[0].numel * 2 if arch.tied else 0
    assert read.weights_read == stored_bytes(arch, BF16) - unread + rows + head


@given(new=st.integers(1, 40), before=st.integers(0, 80))
@settings(deadline=None)
def test_a_chunked_prefill_scores_what_the_whole_one_does(new: int, before: int) -> None:
    for name in ("qwen3_moe", "mistral", "gpt_oss", "deepseek_v3"):
        arch = TINY_ARCHS[name]
        whole = step_flops(arch, prefill_step((before + new,))).score
        first = step_flops(arch, prefill_step((before,))).score if before else 0.0
        chunk = Step(StepKind.PREFILL, (new,), (before + new,), None, 1)
        second = step_flops(arch, chunk).score
        assert first + second == whole


def test_a_causal_prefill_scores_half_of_the_square() -> None:
    arch = TINY_ARCHS["qwen3_moe"]
    tokens, heads, head_dim, layers = 33, 4, 16, 4
    triangle = tokens * (tokens + 1) // 2
    assert step_flops(arch, prefill_step((tokens,))).score == 4 * heads * head_dim * triangle * layers


def test_no_output_head_is_read_without_logits() -> None:
    step = with_all_experts(prefill_step((9,)), OLMOE)
    silent = replace(step, logit_rows=0)
    assert step_bytes(OLMOE, silent, BF16).lm_head == 0
    assert step_flops(OLMOE, silent).lm_head == 0
    assert step_bytes(OLMOE, step, BF16).lm_head == 50304 * 2048 * 2


def test_unknown_or_impossible_routing_is_refused() -> None:
    for activated in (None, (8.0,) * 15, (65.0,) * 16, (-1.0,) * 16):
        with pytest.raises(TraceError):
            step_bytes(OLMOE, decode_step((5,), activated), BF16)


def test_tensor_parallelism_copies_what_it_cannot_cut() -> None:
    arch = TINY_ARCHS["qwen3_moe"]
    step = with_uniform_routing(decode_step((50, 70)), arch)
    one = step_bytes(arch, step, BF16)
    two, four = (step_bytes(arch, step, BF16, Parallelism(tp=tp)) for tp in (2, 4))
    assert two.kv_read == one.kv_read
    assert four.kv_read == 2 * one.kv_read  # 2 KV heads over 4 ranks
    assert two.experts == four.experts == one.experts
    assert two.lm_head == four.lm_head == one.lm_head
    assert two.router == 2 * one.router
    assert four.norm == 4 * one.norm


def test_latents_are_copied_to_every_tensor_parallel_rank() -> None:
    arch = TINY_ARCHS["deepseek_v3"]
    step = with_uniform_routing(decode_step((50, 70)), arch)
    assert step_bytes(arch, step, BF16, Parallelism(tp=4)).kv_read == 4 * step_bytes(arch, step, BF16).kv_read


def test_expert_and_data_parallelism_copy_all_but_the_routed_experts() -> None:
    arch = TINY_ARCHS["deepseek_v3"]
    step = with_uniform_routing(decode_step((50,) * 8), arch)
    one = step_bytes(arch, step, BF16)
    for parallel in (Parallelism(ep=4), Parallelism(dp=4, ep=4), Parallelism(dp=4)):
        spread = step_bytes(arch, step, BF16, parallel)
        assert parallel.num_devices == 4
        assert spread.experts == one.experts
        assert spread.kv_read == one.kv_read
        for part in ("attention", "shared_experts", "router", "lm_head", "dense_ffn"):
            assert getattr(spread, part) == 4 * getattr(one, part)


def test_pipeline_parallelism_copies_nothing() -> None:
    arch = TINY_ARCHS["qwen3_moe"]
    step = with_uniform_routing(decode_step((50,)), arch)
    assert step_bytes(arch, step, BF16, Parallelism(pp=4)) == step_bytes(arch, step, BF16)
    assert Parallelism(tp=2, pp=4).num_devices == 8
