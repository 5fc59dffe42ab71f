"""Routing: expectations, counts from traces, and the invariants that a broken trace cannot pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidInputError, TraceError
from moe_cap.routing import (
    Ids,
    Step,
    StepKind,
    activated_experts,
    activated_experts_at_batch,
    check_routing,
    decode_step,
    expert_histogram,
    skewed_activated_experts,
    uniform_activated_experts,
    with_all_experts,
    with_skewed_routing,
    with_uniform_routing,
)
from tests.architecture.configs import TINY


@pytest.mark.parametrize(
    ("num_experts", "top_k", "tokens", "distinct"),
    [(256, 8, 32, 163.3), (256, 8, 64, 222.4), (128, 8, 16, 82.4), (8, 2, 4, 5.5)],
)
def test_uniform_expectation(num_experts: int, top_k: int, tokens: int, distinct: float) -> None:
    assert uniform_activated_experts(num_experts, top_k, tokens) == pytest.approx(distinct, abs=0.05)


def draw(rng: np.random.Generator, tokens: int, layers: int, num_experts: int, top_k: int) -> Ids:
    scores = rng.random((tokens, layers, num_experts))
    return np.argsort(scores, axis=-1)[..., :top_k].astype(np.int32)


def test_uniform_expectation_is_what_uniform_traces_have() -> None:
    ids = draw(np.random.default_rng(0), 16, 400, 32, 4)
    assert np.mean(activated_experts(ids)) == pytest.approx(uniform_activated_experts(32, 4, 16), rel=0.02)


def test_skewed_expectation_is_what_skewed_traces_have() -> None:
    rng, exponent, tokens, layers = np.random.default_rng(1), 0.8, 16, 400
    popularity = np.arange(1, 33, dtype=np.float64) ** -exponent
    # Gumbel top-k draws without replacement in proportion to popularity
    scores = np.log(popularity) + rng.gumbel(size=(tokens, layers, 32))
    ids = np.argsort(-scores, axis=-1)[..., :4]
    assert np.mean(activated_experts(ids)) == pytest.approx(skewed_activated_experts(32, 4, tokens, exponent), rel=0.02)


@given(num_experts=st.integers(2, 64), tokens=st.integers(0, 200), skew=st.floats(0.01, 3.0), data=st.data())
def test_expectations_lie_between_top_k_and_all_and_skew_lowers_them(
    num_experts: int, tokens: int, skew: float, data: st.DataObject
) -> None:
    top_k = data.draw(st.integers(1, num_experts))
    uniform = uniform_activated_experts(num_experts, top_k, tokens)
    skewed = skewed_activated_experts(num_experts, top_k, tokens, skew)
    assert 0 <= skewed <= uniform + 1e-6
    assert uniform <= min(num_experts, tokens * top_k) + 1e-9
    if tokens:
        assert skewed >= top_k - 1e-6
        assert uniform <= uniform_activated_experts(num_experts, top_k, tokens + 1)


@pytest.mark.parametrize("bad", [(8, 9, 1), (8, 0, 1), (8, 2, -1)])
def test_impossible_expectations_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInputError):
        uniform_activated_experts(*bad)
    with pytest.raises(InvalidInputError):
        skewed_activated_experts(*bad, 0.5)
    with pytest.raises(InvalidInputError):
        skewed_activated_experts(8, 2, 4, -0.1)


@given(tokens=st.integers(1, 20), layers=st.integers(1, 4), data=st.data())
@settings(deadline=None)
def test_real_routing_passes_every_check(tokens: int, layers: int, data: st.DataObject) -> None:
    num_experts = data.draw(st.integers(2, 16))
    top_k = data.draw(st.integers(1, num_experts))
    ids = draw(np.random.default_rng(data.draw(st.integers(0, 9))), tokens, layers, num_experts, top_k)
    if ids.max() == 0:
        ids = ids + 1
    check_routing(ids, num_experts=num_experts, top_k=top_k, num_layers=layers)
    histogram = expert_histogram(ids, num_experts)
    assert (histogram.sum(axis=1) == tokens * top_k).all()
    assert tuple((histogram > 0).sum(axis=1)) == activated_experts(ids)
    assert activated_experts(ids[:1]) == (top_k,) * layers


GOOD = draw(np.random.default_rng(2), 6, 3, 8, 2)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (np.zeros((6, 3, 2), np.int32), "all zero"),
        (np.where(GOOD.max() == GOOD, 8, GOOD), "0 <= id < 8"),
        (GOOD - 1, "0 <= id < 8"),
        (np.repeat(GOOD[..., :1], 2, axis=-1), "twice"),
        (GOOD[..., :1], "experts per token"),
        (GOOD[:, :2], "dense ones have no row"),
        (GOOD[:0], "empty"),
        (GOOD[0], "expected integers"),
        (GOOD.astype(np.float32), "expected integers"),
    ],
)  # fmt: skip
def test_a_broken_trace_is_refused_and_named(broken: Ids, says: str) -> None:
    with pytest.raises(TraceError, match=says):
        check_routing(broken, num_experts=8, top_k=2, num_layers=3)


def test_distinct_experts_at_any_batch_size_come_from_one_trace() -> None:
    rng = np.random.default_rng(3)
    ids = np.stack([draw(rng, 5, 2, 16, 3) for _ in range(8)])
    means = [activated_experts_at_batch(ids, batch) for batch in (1, 2, 4, 8)]
    assert means[0] == (3.0, 3.0)
    for smaller, larger in pairwise(means):
        assert all(a <= b for a, b in zip(smaller, larger, strict=True))
    whole = np.mean([activated_experts(ids[:, step]) for step in range(5)], axis=0)
    assert means[3] == pytest.approx(tuple(whole))
    for wrong in (0, 9):
        with pytest.raises(TraceError):
            activated_experts_at_batch(ids, wrong)


def test_expectations_fill_a_step_for_every_moe_layer() -> None:
    arch = parse_config(TINY["qwen3_moe"])
    step = decode_step((4,) * 6)
    uniform, skewed = with_uniform_routing(step, arch), with_skewed_routing(step, arch, 1.0)
    assert uniform.activated_experts == (uniform_activated_experts(10, 3, 6),) * len(arch.moe_layers)
    assert skewed.routing_for(arch) < uniform.routing_for(arch)
    assert with_all_experts(step, arch).activated_experts == (10.0,) * len(arch.moe_layers)


def test_a_dense_model_needs_no_routing() -> None:
    assert decode_step((4,)).routing_for(parse_config(TINY["llama"])) == ()


@pytest.mark.parametrize(
    "arguments",
    [
        ((1, 1), (4,), 1, None),
        ((5,), (4,), 1, None),
        ((-1,), (4,), 1, None),
        ((1,), (4,), -1, None),
        ((1,), (4,), 1, 0.0),
        ((1,), (4,), 1, float("nan")),
    ],
)  # fmt: skip
def test_an_impossible_step_is_refused(
    arguments: tuple[tuple[int, ...], tuple[int, ...], int, float | None],
) -> None:
    new, context, rows, seconds = arguments
    with pytest.raises(TraceError):
        Step(StepKind.DECODE, new, context, None, rows, seconds)
