"""The numbers of a point, on steps and times that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_cap.architecture import parse_config
from moe_cap.measure.engines.base import ClientLoad
from moe_cap.measure.machine import Peaks
from moe_cap.measure.quantities import Repeat, above_one, client_quantities, measured_quantities, never_steady
from moe_cap.measure.step_quantities import Account
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.metrics.latency import RequestTiming, Slo
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import storage_of
from moe_cap.quantity import QUANTITIES, Quantity, known
from moe_cap.routing import RoutingSource, StepKind, decode_step, prefill_step

PEAKS = Peaks("bf16", 1e9, 1e12, 5e8, 4e11)


@pytest.fixture
def account(tiny_files: Any) -> Account:
    architecture = parse_config(tiny_files.config)
    return Account(architecture, storage_of(architecture, "bf16"), PEAKS, 1, RoutingSource.LOCK_STEP)


def timing(sent_s: float, step_s: float = 1.0, tokens: int = 3) -> RequestTiming:
    times = tuple(sent_s + step_s * (i + 1) for i in range(tokens))
    return RequestTiming(sent_s, None, times, times[-1], 10, tokens)


def repeat(step_s: float = 1.0) -> Repeat:
    decode = [decode_step((11 + i,), (2.0, 2.0, 2.0), step_s) for i in range(2)]
    return Repeat(
        (timing(0.0, step_s), timing(3 * step_s, step_s)), (prefill_step((10,), (8.0, 7.0, 6.0), step_s), *decode)
    )


def test_utilisation_is_a_ratio_of_sums(account: Account) -> None:
    slow = replace(repeat(), steps=(decode_step((11,), (2.0,) * 3, 1.0), decode_step((11,), (4.0,) * 3, 3.0)))
    values = measured_quantities([slow], 1, account)
    moved = sum(step_bytes(account.architecture, step, account.storage).total_read for step in slow.steps)
    assert values["decode_s_mbu"].value == pytest.approx(moved / 4.0 / 1e9)
    assert values["decode_s_mbu_of_measured_peak"].value == pytest.approx(moved / 4.0 / 5e8)
    flops = sum(step_flops(account.architecture, step).total for step in slow.steps)
    assert values["decode_s_mfu"].value == pytest.approx(flops / 4.0 / 1e12)
    assert values["decode_activated_experts"].value == pytest.approx(3.0)
    assert values["decode_activated_share"].value == pytest.approx(3.0 / 8)
    assert values["decode_bytes_per_step"].value == pytest.approx(moved / 2)


def test_bytes_are_summed_over_the_ranks_that_keep_them(account: Account) -> None:
    """Two data-parallel ranks keep attention twice and, spread over both, every expert once."""
    spread = replace(account, parallel=Parallelism(dp=2, ep=2), num_devices=2)
    one, two = (measured_quantities([repeat()], 1, each) for each in (account, spread))
    decode = [step for step in repeat().steps if step.kind is StepKind.DECODE]
    single = [step_bytes(account.architecture, step, account.storage) for step in decode]
    copied = sum(each.weights_read - each.experts - each.embedding for each in single) / len(single)
    assert two["decode_bytes_per_step"].value == pytest.approx(one["decode_bytes_per_step"].value + copied)
    for name in ("decode_s_mbu", "decode_mbu"):
        assert two[name].value > one[name].value / 2
    assert two["decode_s_mbu_paper"].value == pytest.approx(one["decode_s_mbu_paper"].value / 2)


def test_the_forms_keep_their_order(account: Account) -> None:
    values = measured_quantities([repeat()], 1, account)
    for phase in ("prefill", "decode"):
        assert values[f"{phase}_s_mbu_paper"].value < values[f"{phase}_s_mbu"].value < values[f"{phase}_mbu"].value
        assert values[f"{phase}_s_mfu_paper"].value < values[f"{phase}_s_mfu"].value < values[f"{phase}_mfu"].value


def test_latencies_come_from_the_client_clock(account: Account) -> None:
    values = measured_quantities([repeat()], 1, account)
    assert values["ttft_s_p50"].value == values["tpot_s_p99"].value == values["itl_s_mean"].value == pytest.approx(1.0)
    assert values["e2e_s_mean"].value == pytest.approx(3.0)
    assert values["output_tokens_per_s"].value == pytest.approx(2 / 3)
    assert values["prefill_tokens_per_s"].value == pytest.approx(10.0)
    assert values["decode_tokens_per_s"].value == pytest.approx(1.0)


def test_requests_of_the_ramp_are_in_no_percentile(account: Account) -> None:
    """Three users: the first two requests met a lighter load; the last one, sent as the window closed, stays."""
    ramp = [timing(0.0, 0.1), timing(0.1, 0.1)]
    steady = [timing(0.2, 1.0), timing(0.3, 1.0), timing(0.4, 1.0), timing(3.2, 2.0)]
    values = measured_quantities([Repeat((*ramp, *steady), repeat().steps)], 3, account)
    assert values["ttft_s_p50"].value == pytest.approx(1.0)
    assert values["ttft_s_mean"].value == pytest.approx(5 / 4)
    assert values["ttft_s_p50"].note == "over 4 of 6 requests, sent in the measured window; 4 completed"


def test_a_lock_step_counts_all_its_requests(account: Account) -> None:
    batches = tuple(timing(start, 1.0) for start in (0.0, 0.0, 4.0, 4.0))
    values = measured_quantities([Repeat(batches, repeat().steps)], 2, account)
    assert str(values["e2e_s_p99"].note).startswith("over all requests")


def test_every_number_has_a_value_or_a_reason(account: Account) -> None:
    values = measured_quantities([repeat()], 1, account)
    assert values["schedule_lag_s_p99"].value is None
    assert values["schedule_lag_s_p99"].reason == "a closed loop has no schedule to lag behind"
    assert set(values) <= set(QUANTITIES)
    missing = {spec.name for spec in QUANTITIES.values() if spec.group not in {"energy", "cost", "client"}} - set(
        values
    )
    assert missing == {"routing_agreement"}


def test_one_repetition_has_no_interval_and_three_have_one(account: Account) -> None:
    assert measured_quantities([repeat()], 1, account)["tpot_s_mean"].interval_95 is None
    values = measured_quantities([repeat(1.0), repeat(2.0), repeat(3.0)], 1, account)
    assert values["tpot_s_mean"].value == pytest.approx(2.0)
    assert values["tpot_s_mean"].interval_95 == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert values["output_tokens_per_s"].value == pytest.approx((2 / 3 + 1 / 3 + 2 / 9) / 3)
    assert values["decode_s_mbu"].interval_95 > 0


@pytest.mark.parametrize("untold", [0, 1])
def test_a_rate_that_not_all_repetitions_have_is_of_those_that_have_it_and_says_so(
    account: Account, untold: int
) -> None:
    repeats = [repeat(1.0), repeat(2.0), repeat(4.0)]
    repeats[untold] = replace(repeats[untold], steps=repeats[untold].steps[:1])
    values = measured_quantities(repeats, 1, account)
    rate = values["decode_tokens_per_s"]
    assert rate.value == pytest.approx((0.5 + 0.25) / 2 if untold == 0 else (1.0 + 0.25) / 2)
    assert (rate.reason, rate.note) == (None, "mean of 2 of 3 repetitions: the others have none")
    assert rate.interval_95 is None
    assert values["prefill_tokens_per_s"].note is None
    for name, quantity in values.items():
        assert Quantity.model_validate(quantity.model_dump()) == quantity, name


def test_an_open_loop_that_is_over_before_it_is_steady_breaks_a_rule(account: Account) -> None:
    """Ten a second for two seconds, answers of 1.85 s: no rate of 10/s was ever carried."""
    starts = [index / 10 for index in range(20)]
    short = Repeat(tuple(RequestTiming(at, at, (at + 0.5, at + 1.85), at + 1.85, 10, 2) for at in starts), ())
    long = Repeat(tuple(RequestTiming(at, at, (at + 0.5, at + 0.6), at + 0.6, 10, 2) for at in starts), ())
    values = measured_quantities([short], None, account)
    assert values["output_tokens_per_s"].value == pytest.approx(40 / 3.75)
    assert str(values["output_tokens_per_s"].note).startswith("whole window")
    assert str(values["ttft_s_p99"].note).startswith("over all requests")
    (reason,) = never_steady([long, short], None)
    assert "1 of 2 repetitions" in reason
    assert "at least 3.7 s" in reason
    assert never_steady([long], None) == ()
    assert never_steady([short], 1) == (), "a closed loop is no rate"


def test_gaps_between_pieces_say_how_many_tokens_a_piece_held(account: Account) -> None:
    pieces = RequestTiming(0.0, None, (1.0, 1.0, 1.5, 1.5), 1.5, 10, 4)
    values = measured_quantities([Repeat((pieces,), ())], 1, account)
    assert values["itl_s_p50"].value == values["itl_s_mean"].value == pytest.approx(0.5)
    assert str(values["itl_s_p50"].note).endswith("gaps are between pieces of 2 tokens on average")
    assert "pieces" not in str(values["ttft_s_p50"].note)


def test_goodput_counts_the_requests_that_kept_every_objective(account: Account) -> None:
    slow = Repeat((*repeat().timings, timing(6.0, 2.0)), repeat().steps)
    window_s = 12.0
    kept = measured_quantities([slow], 1, account, Slo(tpot_s=1.5))["goodput_requests_per_s"]
    assert kept.value == pytest.approx(2 / window_s)
    assert kept.note == "TPOT at most 1.5 s"
    both = measured_quantities([slow], 1, account, Slo(ttft_s=0.5, tpot_s=1.5))["goodput_requests_per_s"]
    assert both.value == 0
    unasked = measured_quantities([slow], 1, account)["goodput_requests_per_s"]
    assert (unasked.value, unasked.reason) == (None, "the submission sets no service level objectives")


def test_without_a_datasheet_the_measured_peak_stands_in_and_says_so(account: Account) -> None:
    bare = replace(account, peaks=replace(PEAKS, datasheet_bytes_per_s=None, datasheet_flops_per_s=None))
    values = measured_quantities([repeat()], 1, bare)
    assert values["decode_s_mbu"].value == values["decode_s_mbu_of_measured_peak"].value
    assert "no datasheet" in values["decode_s_mbu"].note


def test_a_dtype_without_any_peak_has_no_mfu_and_keeps_its_mbu(account: Account) -> None:
    bare = replace(account, peaks=replace(PEAKS, datasheet_flops_per_s=None, measured_flops_per_s=None))
    values = measured_quantities([repeat()], 1, bare)
    assert values["decode_s_mfu"].value is None
    assert "no peak" in values["decode_s_mfu"].reason
    assert values["decode_s_mbu"].value is not None


def test_uniform_routing_is_marked_estimated(account: Account) -> None:
    values = measured_quantities([repeat()], 1, replace(account, routing_source=RoutingSource.UNIFORM))
    assert values["decode_s_mbu"].source == values["decode_activated_experts"].source == "estimated"


def test_an_engine_without_steps_keeps_its_latencies(account: Account) -> None:
    values = measured_quantities([replace(repeat(), steps=())], 1, account)
    assert values["decode_s_mbu"].value is None
    assert values["decode_bytes_per_step"].reason
    assert values["ttft_s_p50"].value == pytest.approx(1.0)


def test_a_failed_request_counts_nowhere_but_among_the_failed(account: Account) -> None:
    failed = RequestTiming(0.0, None, (), 9.0, 10, 0, error="reset")
    values = measured_quantities([replace(repeat(), timings=(*repeat().timings, failed))], 1, account)
    assert values["failed_requests"].value == 1
    assert values["e2e_s_mean"].value == pytest.approx(3.0)


def test_only_the_sparse_forms_may_not_exceed_one() -> None:
    values = {name: known(name, 1.2) for name in ("decode_mbu", "decode_s_mbu", "prefill_s_mfu_of_measured_peak")}
    assert [text.partition(" ")[0] for text in above_one(values)] == [
        "decode_s_mbu",
        "prefill_s_mfu_of_measured_peak",
    ]


def test_a_dense_model_has_no_experts_to_count(tiny_files: Any) -> None:
    config = {key: value for key, value in tiny_files.config.items() if "expert" not in key and "moe" not in key}
    architecture = parse_config(config | {"model_type": "qwen3"})
    account = Account(architecture, storage_of(architecture, "bf16"), PEAKS, 1, None)
    values = measured_quantities([Repeat((timing(0.0),), (decode_step((11,), (), 1.0),))], 1, account)
    assert values["decode_activated_experts"].value is None
    assert values["decode_s_mbu"].value == values["decode_mbu"].value


def test_a_peak_that_was_not_measured_is_missing_with_the_probes_reason(account: Account) -> None:
    peaks = replace(PEAKS, compute_dtype="fp8", measured_flops_per_s=None, unmeasured_reason="no fp8 units")
    values = measured_quantities([repeat()], 1, replace(account, peaks=peaks))
    missing = values["decode_s_mfu_of_measured_peak"]
    assert (missing.value, missing.reason) == (None, "no peak is known for fp8 on this device: no fp8 units")
    assert values["decode_s_mfu"].value is not None


def test_the_worst_repetition_tells_how_the_client_fared() -> None:
    values = client_quantities([ClientLoad(0.001, 0.002, 0.3), ClientLoad(0.004, None, 0.1)])
    assert {name: quantity.value for name, quantity in values.items()} == {
        "client_lag_s_p99": 0.004,
        "client_beat_lag_s_p99": 0.002,
        "client_busy_share": 0.3,
    }
    assert {values.reason for values in client_quantities([None]).values()} == {"the engine runs in this process"}
