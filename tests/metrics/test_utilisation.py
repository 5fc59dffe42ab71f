"""Utilisations are ratios of sums, refuse missing peaks, and say when they cannot be true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidInputError, MissingPeakError
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.metrics.utilisation import mbu, mfu, s_mbu, s_mbu_paper, s_mfu, s_mfu_paper, utilisation
from moe_cap.precision import uniform_storage
from moe_cap.routing import decode_step, prefill_step, with_uniform_routing
from tests.architecture.configs import TINY

ARCH = parse_config(TINY["qwen3_moe"])
BF16 = uniform_storage("bf16")
ROWS = tuple(5.0 for _ in ARCH.moe_blocks)


def test_s_mbu_is_a_ratio_of_sums_and_no_mean_of_ratios() -> None:
    steps = [decode_step((10,), ROWS, step_s=1.0), decode_step((500,) * 9, ROWS, step_s=3.0)]
    total = sum(step_bytes(ARCH, step, BF16).total_read for step in steps)
    measured = s_mbu(ARCH, steps, BF16, peak_bytes_per_s=1e9)
    assert measured.value == pytest.approx(total / 4.0 / 1e9)
    assert measured.invalid_reason is None


def test_s_mfu_is_a_ratio_of_sums() -> None:
    steps = [prefill_step((30, 20), ROWS, step_s=0.5), prefill_step((7,), ROWS, step_s=0.25)]
    total = sum(step_flops(ARCH, step).total for step in steps)
    measured = s_mfu(ARCH, steps, peak_flops_per_s=1e12, num_devices=2)
    assert measured.value == pytest.approx(total / 0.75 / 2e12)


def test_paper_sparse_and_vanilla_forms_are_ordered() -> None:
    steps = [decode_step((40,) * 3, ROWS, step_s=0.1)]
    paper = s_mbu_paper(ARCH, steps, BF16, peak_bytes_per_s=1e12).value
    sparse = s_mbu(ARCH, steps, BF16, peak_bytes_per_s=1e12).value
    vanilla = mbu(ARCH, steps, BF16, peak_bytes_per_s=1e12).value
    assert 0 < paper < sparse < vanilla
    flops = [form(ARCH, steps, peak_flops_per_s=1e12).value for form in (s_mfu_paper, s_mfu, mfu)]
    assert 0 < flops[0] < flops[1] < flops[2]


def test_more_devices_divide_the_utilisation() -> None:
    steps = [with_uniform_routing(decode_step((40,), step_s=0.1), ARCH)]
    one = s_mbu(ARCH, steps, BF16, peak_bytes_per_s=1e9).value
    staged = s_mbu(ARCH, steps, BF16, peak_bytes_per_s=1e9, parallel=Parallelism(pp=4)).value
    assert staged == pytest.approx(one / 4)


@pytest.mark.parametrize("peak", [None, 0.0, -1.0, float("nan")])
def test_a_missing_peak_is_a_named_error_and_never_zero(peak: float | None) -> None:
    steps = [decode_step((40,), ROWS, step_s=0.1)]
    with pytest.raises(MissingPeakError):
        s_mbu(ARCH, steps, BF16, peak_bytes_per_s=peak)
    with pytest.raises(MissingPeakError):
        s_mfu(ARCH, steps, peak_flops_per_s=peak)


def test_above_one_is_kept_and_marked_invalid() -> None:
    measured = utilisation(300.0, 1.0, 100.0, 2, name="s_mbu")
    assert measured.value == 1.5
    assert measured.invalid_reason is not None
    assert "s_mbu" in measured.invalid_reason


def test_predicted_steps_cannot_enter_a_utilisation() -> None:
    with pytest.raises(InvalidInputError):
        s_mbu(ARCH, [decode_step((40,), ROWS)], BF16, peak_bytes_per_s=1e9)
    with pytest.raises(InvalidInputError):
        s_mbu(ARCH, [], BF16, peak_bytes_per_s=1e9)
    with pytest.raises(InvalidInputError):
        utilisation(1.0, 1.0, 1.0, 0, name="s_mbu")


@given(amount=st.floats(0, 1e15), seconds=st.floats(1e-6, 1e6), peak=st.floats(1.0, 1e15), devices=st.integers(1, 1024))
def test_a_utilisation_is_valid_exactly_up_to_one(amount: float, seconds: float, peak: float, devices: int) -> None:
    measured = utilisation(amount, seconds, peak, devices, name="s_mfu")
    assert measured.value >= 0
    assert (measured.invalid_reason is None) == (measured.value <= 1)
