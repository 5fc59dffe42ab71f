from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import InvalidInputError
from moe_cap.measure.load import PRESETS, ClosedLoop, OpenLoop, constant, gamma, poisson, replay

RATES = st.floats(0.01, 1e5)
COUNTS = st.integers(1, 300)
SEEDS = st.integers(0, 2**32 - 1)


@given(RATES, COUNTS)
def test_constant_arrivals_are_one_period_apart(rate: float, count: int) -> None:
    arrivals = constant(rate, count).arrivals_s
    assert len(arrivals) == count
    assert arrivals[0] == 0
    assert np.diff(arrivals) == pytest.approx(np.full(count - 1, 1 / rate))


@given(RATES, st.floats(0.1, 20), COUNTS, SEEDS)
def test_random_arrivals_begin_at_zero_and_never_go_back(rate: float, burstiness: float, count: int, seed: int) -> None:
    arrivals = gamma(rate, burstiness, count, np.random.default_rng(seed)).arrivals_s
    assert len(arrivals) == count
    assert arrivals[0] == 0
    assert all(before <= after for before, after in pairwise(arrivals))


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_mean_and_the_variation_that_were_asked(burstiness: float) -> None:
    gaps = np.diff(gamma(20.0, burstiness, 40_000, np.random.default_rng(1)).arrivals_s)
    assert gaps.mean() == pytest.approx(1 / 20, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


def test_poisson_is_gamma_of_shape_one() -> None:
    assert poisson(3.0, 50, np.random.default_rng(7)) == gamma(3.0, 1.0, 50, np.random.default_rng(7))


def test_the_same_seed_gives_the_same_arrivals() -> None:
    first, second = (gamma(5.0, 0.5, 20, np.random.default_rng(3)) for _ in range(2))
    assert first == second


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.1, 100))
def test_a_replayed_trace_keeps_its_gaps_scaled(times: list[float], speed: float) -> None:
    arrivals = replay(times, speed=speed).arrivals_s
    assert arrivals[0] == 0
    assert arrivals[-1] == pytest.approx((max(times) - min(times)) / speed)


def test_rate_is_that_of_the_gaps() -> None:
    assert constant(8.0, 81).rate_per_s == pytest.approx(8.0)
    assert OpenLoop((0.0,)).rate_per_s is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: constant(0, 5),
        lambda: constant(float("inf"), 5),
        lambda: constant(1, 0),
        lambda: gamma(1, -1, 5, np.random.default_rng(0)),
        lambda: replay([]),
        lambda: replay([1.0], speed=0),
        lambda: OpenLoop(()),
        lambda: OpenLoop((1.0, 0.5)),
        lambda: OpenLoop((-1.0,)),
        lambda: OpenLoop((float("nan"),)),
        lambda: ClosedLoop(0),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(make: object) -> None:
    with pytest.raises(InvalidInputError):
        make()  # type: ignore[operator]


def test_presets_are_those_of_the_moe_cap_configurations() -> None:
    assert {name: (p.input_tokens, p.output_tokens) for name, p in PRESETS.items()} == {
        "4k/1k": (4000, 1000),
        "13k/1k": (13000, 1000),
        "1k/8k": (1000, 8000),
    }
