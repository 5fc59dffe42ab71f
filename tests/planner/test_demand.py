"""Requirements against the numbers of both papers, and what must hold for any target."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.errors import InvalidInputError
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.planner import memory, requirement, tpot_for_throughput
from moe_cap.precision import storage_of, stored_bytes, uniform_storage
from tests.planner.models import DBRX, DEEPSEEK_R1, DENSE, MIXTRAL_8X22B, SMALL, model

SMALL_MODEL, DENSE_MODEL = model(SMALL), model(DENSE)
BF16 = uniform_storage("bf16")
targets = {"batch": st.integers(1, 64), "context_tokens": st.integers(1, 4096), "tpot_s": st.floats(0.001, 1.0)}


def test_bandwidth_of_mixtral_at_100_ms() -> None:
    # MoE-CAP v1, section 4.4: 39 B x 2 / 0.1 s = 0.78 TB/s activated, 141 B x 2 / 0.1 s = 2.82 TB/s with all.
    arch = model(MIXTRAL_8X22B)
    found = requirement(arch, storage_of(arch, "bf16"), batch=1, context_tokens=128, tpot_s=0.1)
    assert found.bytes_per_s == pytest.approx(0.78e12, rel=0.01)
    assert found.bytes_per_s_all_experts == pytest.approx(2.82e12, rel=0.01)


def test_flops_of_dbrx_at_2000_tokens_per_s() -> None:
    # The same section: 2 x 36 B x 2000 = 144 TFLOP/s sparse; 2 x 132 B x 2000 = 528 with all parameters.
    arch = model(DBRX)
    tpot_s = tpot_for_throughput(2000.0, batch=32)
    found = requirement(arch, storage_of(arch, "bf16"), batch=32, context_tokens=128, tpot_s=tpot_s)
    assert found.tokens_per_s == pytest.approx(2000.0)
    assert found.flops_per_s == pytest.approx(144e12, rel=0.02)
    assert found.flops_per_s_all_experts == pytest.approx(528e12, rel=0.02)


def test_the_published_lines_that_need_no_reading_of_their_conventions() -> None:
    # MoE-CAP v6, Figure 4, read off within 2 %: all experts of DeepSeek-R1, Mixtral-8x22B at batch 1.
    for config, all_experts, gb_per_s in ((DEEPSEEK_R1, True, 13_574), (MIXTRAL_8X22B, False, 781)):
        arch = model(config)
        found = requirement(arch, storage_of(arch, "bf16"), batch=1, context_tokens=4096, tpot_s=0.1)
        bytes_per_s = found.bytes_per_s_all_experts if all_experts else found.bytes_per_s
        assert bytes_per_s / 1e9 == pytest.approx(gb_per_s, rel=0.02)


@settings(max_examples=40)
@given(**targets)
def test_activated_experts_need_no_more_than_all(batch: int, context_tokens: int, tpot_s: float) -> None:
    found = requirement(SMALL_MODEL, BF16, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s)
    assert 0 < found.bytes_per_s <= found.bytes_per_s_all_experts
    assert 0 < found.flops_per_s <= found.flops_per_s_all_experts
    assert 2 <= found.activated_experts <= 8


@settings(max_examples=40)
@given(**targets)
def test_a_dense_model_uses_its_one_expert(batch: int, context_tokens: int, tpot_s: float) -> None:
    found = requirement(DENSE_MODEL, BF16, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s)
    assert found.bytes_per_s == found.bytes_per_s_all_experts
    assert found.flops_per_s == found.flops_per_s_all_experts
    assert found.activated_experts is None


@settings(max_examples=40)
@given(**targets)
def test_requirements_grow_with_batch_and_context_and_shrink_with_time(
    batch: int, context_tokens: int, tpot_s: float
) -> None:
    base = requirement(SMALL_MODEL, BF16, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s)
    wider = requirement(SMALL_MODEL, BF16, batch=batch + 1, context_tokens=context_tokens, tpot_s=tpot_s)
    longer = requirement(SMALL_MODEL, BF16, batch=batch, context_tokens=context_tokens + 1, tpot_s=tpot_s)
    slower = requirement(SMALL_MODEL, BF16, batch=batch, context_tokens=context_tokens, tpot_s=2 * tpot_s)
    for more in (wider, longer):
        assert more.bytes_per_s > base.bytes_per_s
        assert more.flops_per_s > base.flops_per_s
        assert more.memory.total_bytes > base.memory.total_bytes
    assert slower.bytes_per_s == pytest.approx(base.bytes_per_s / 2)
    assert slower.flops_per_s == pytest.approx(base.flops_per_s / 2)
    assert slower.memory == base.memory


def test_skewed_routing_needs_less_bandwidth_than_uniform() -> None:
    uniform = requirement(SMALL_MODEL, BF16, batch=4, context_tokens=64, tpot_s=0.1)
    skewed = requirement(SMALL_MODEL, BF16, batch=4, context_tokens=64, tpot_s=0.1, zipf_exponent=1.2)
    assert skewed.bytes_per_s < uniform.bytes_per_s
    assert skewed.flops_per_s == uniform.flops_per_s


def test_a_single_device_holds_the_stored_weights_and_the_cache() -> None:
    held = memory(SMALL_MODEL, BF16, batch=3, context_tokens=100)
    assert held.weights_bytes == stored_bytes(SMALL_MODEL, BF16)
    assert held.kv_bytes == 3 * 100 * SMALL_MODEL.kv_bytes_per_token(BF16.kv)
    assert held.total_bytes == held.weights_bytes + held.kv_bytes


def test_layouts_hold_copies_of_what_they_replicate() -> None:
    single = memory(SMALL_MODEL, BF16, batch=8, context_tokens=64)
    cut = memory(SMALL_MODEL, BF16, batch=8, context_tokens=64, parallel=Parallelism(tp=2))
    beyond_heads = memory(SMALL_MODEL, BF16, batch=8, context_tokens=64, parallel=Parallelism(tp=8))
    replicated = memory(SMALL_MODEL, BF16, batch=8, context_tokens=64, parallel=Parallelism(dp=4, ep=4))
    assert cut.kv_bytes == single.kv_bytes
    assert beyond_heads.kv_bytes == 4 * single.kv_bytes, "two KV heads on eight ranks"
    assert replicated.kv_bytes == single.kv_bytes
    experts = 4 * 8 * 3 * 512 * 1024 * 2
    assert replicated.weights_bytes == pytest.approx(experts + 4 * (single.weights_bytes - experts))


@pytest.mark.parametrize(
    "wrong",
    [{"batch": 0}, {"batch": 1.5}, {"context_tokens": -1}, {"tpot_s": 0.0}, {"tpot_s": float("nan")}, {"batch": True}],
)
def test_impossible_targets_are_refused_by_name(wrong: dict[str, object]) -> None:
    target = {"batch": 1, "context_tokens": 1, "tpot_s": 0.1} | wrong
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        requirement(SMALL_MODEL, BF16, **target)
    with pytest.raises(InvalidInputError, match="tokens_per_s"):
        tpot_for_throughput(0.0, 1)
