"""Latency statistics against hand-worked timelines, and what must hold for any of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import InvalidInputError
from moe_cap.metrics.latency import (
    RequestTiming,
    Slo,
    Window,
    WindowKind,
    confidence_interval_95,
    goodput_requests_per_s,
    measurement_window,
    summary,
    throughput,
)
from moe_cap.metrics.student_t import t_quantile_95, t_within

times = st.floats(0, 100, allow_nan=False)


def request(
    sent: float, first: float, end: float, tokens: int = 5, *, prompt: int = 10, intended: float | None = None,
    error: str | None = None,
) -> RequestTiming:  # fmt: skip
    arrivals = tuple(np.linspace(first, end, tokens)) if tokens > 1 else (first,) * tokens
    return RequestTiming(sent, intended, arrivals, end, prompt, tokens, error)


@st.composite
def timelines(draw: st.DrawFn) -> list[RequestTiming]:
    spans = draw(
        st.lists(st.tuples(times, st.floats(0.01, 5), st.floats(0.01, 5), st.integers(1, 8)), min_size=1, max_size=12)
    )
    return [request(sent, sent + wait, sent + wait + stream, tokens) for sent, wait, stream, tokens in spans]


def test_latencies_of_one_request() -> None:
    timing = RequestTiming(1.0, 0.9, (1.5, 1.7, 2.1), 2.1, 7, 3)
    assert timing.ttft_s == 0.5
    assert timing.tpot_s == pytest.approx(0.3)
    assert timing.itl_s == pytest.approx((0.2, 0.4))
    assert timing.e2e_s == pytest.approx(1.1)
    assert timing.schedule_lag_s == pytest.approx(0.1)


def test_a_one_token_answer_has_no_time_per_token() -> None:
    timing = RequestTiming(0.0, None, (0.5,), 0.5, 7, 1)
    assert timing.tpot_s is None
    assert timing.itl_s == ()
    assert timing.schedule_lag_s is None


def test_a_request_without_output_has_no_first_token() -> None:
    timing = RequestTiming(0.0, None, (), 0.5, 7, 0, "503")
    assert timing.ttft_s is None
    assert timing.tpot_s is None


def test_tokens_that_came_together_have_no_gap_between_them() -> None:
    """A reader of pieces of two tokens, 5 ms apart, sees gaps of 5 ms: not 0 and 5 in turn."""
    by_token = RequestTiming(0.0, None, (1.0, 1.0, 1.005, 1.005, 1.01), 1.01, 7, 5)
    by_piece = RequestTiming(0.0, None, (1.0, 1.005, 1.01), 1.01, 7, 5)
    assert by_token.itl_s == by_piece.itl_s == pytest.approx((0.005, 0.005))


def test_pieces_of_several_tokens_do_not_shorten_the_time_per_token() -> None:
    assert RequestTiming(0.0, None, (1.0, 2.0), 2.0, 1, 11).tpot_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    "events", [(1.0, (0.5,), 2.0), (0.0, (1.0, 0.9), 2.0), (0.0, (1.0,), 0.9), (0.0, (float("nan"),), 1.0)]
)
def test_events_out_of_order_are_refused(events: tuple[float, tuple[float, ...], float]) -> None:
    with pytest.raises(InvalidInputError, match="out of order"):
        RequestTiming(events[0], None, events[1], events[2], 1, 1)


@given(timelines())
def test_first_token_and_the_rest_make_the_whole(timings: list[RequestTiming]) -> None:
    for timing in timings:
        rest = 0 if timing.tpot_s is None else timing.tpot_s * (timing.output_tokens - 1)
        if timing.output_tokens > 1:
            assert timing.ttft_s + rest == pytest.approx(timing.e2e_s)
        assert sum(timing.itl_s) == pytest.approx(timing.token_s[-1] - timing.token_s[0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentiles_are_ordered_and_inside_the_data(values: list[float]) -> None:
    found = summary(values)
    ordered = [min(values), found.p50, found.p90, found.p95, found.p99, max(values)]
    assert all(a <= b + 1e-9 for a, b in pairwise(ordered))
    assert min(values) - 1e-6 <= found.mean <= max(values) + 1e-6
    assert found.count == len(values)


def test_summary_skips_what_is_unknown_and_says_when_nothing_is_known() -> None:
    assert summary([None, None]) is None
    assert summary([]) is None
    found = summary([1.0, None, 3.0])
    assert (found.mean, found.count, found.p50) == (2.0, 2, 2.0)
    assert found.std == pytest.approx(2**0.5)
    assert summary([4.0]).std is None


def test_the_steady_window_starts_when_the_concurrency_is_reached_and_ends_with_the_last_send() -> None:
    timings = [request(0, 1, 10), request(2, 3, 11), request(11, 12, 20), request(10, 11, 19)]
    assert measurement_window(timings, 2) == Window(2, 11, WindowKind.STEADY)


def test_a_closed_loop_of_one_is_steady_from_its_first_request() -> None:
    timings = [request(0, 1, 2), request(2, 3, 4), request(4, 5, 6)]
    assert measurement_window(timings, 1) == Window(0, 4, WindowKind.STEADY)


@pytest.mark.parametrize("concurrency", [2, 3])
def test_a_run_without_a_steady_part_is_taken_whole_and_says_so(concurrency: int) -> None:
    window = measurement_window([request(0, 1, 4), request(0, 2, 5)], concurrency)
    assert window.kind is WindowKind.WHOLE
    assert window.start_s == 0
    assert window.end_s == pytest.approx(5)


def test_an_open_loop_is_steady_from_when_answers_have_had_their_time_to_the_last_send() -> None:
    timings = [request(at, at + 1, at + 5) for at in range(20)]
    assert measurement_window(timings, None) == Window(5, 19, WindowKind.STEADY)


def test_an_open_loop_that_is_over_before_the_first_answer_is_taken_whole() -> None:
    """Sixteen answers of a second each, sent within three quarters of one: nothing ends in the time of sending."""
    timings = [request(0.05 * index, 0.05 * index + 0.02, 0.05 * index + 1.02) for index in range(16)]
    window = measurement_window(timings, None)
    assert window.kind is WindowKind.WHOLE
    assert throughput(timings, window).requests_per_s == pytest.approx(16 / 1.77)
    assert goodput_requests_per_s(timings, Slo(ttft_s=1, e2e_s=5), window) == pytest.approx(16 / 1.77)


def test_a_moment_between_the_ramp_and_the_last_send_is_no_steady_window() -> None:
    """Answers of 1.85 s, and the last request 1.9 s after the first: nothing comes in the 0.05 s between."""
    timings = [RequestTiming(at, at, (at + 0.5, at + 1.85), at + 1.85, 10, 2) for at in np.arange(20) / 10]
    window = measurement_window(timings, None)
    assert window.kind is WindowKind.WHOLE
    assert throughput(timings, window).output_tokens_per_s == pytest.approx(40 / 3.75)


def test_a_window_that_holds_the_time_and_not_the_requests_is_not_steady() -> None:
    """All but two in the first second, answered after two; then nothing for a minute."""
    timings = [request(at, at + 1, at + 2) for at in (*np.arange(18) / 18, 30.0, 60.0)]
    assert measurement_window(timings, None).kind is WindowKind.WHOLE


def test_a_closed_loop_that_hardly_refills_is_not_steady() -> None:
    first = [request(at, at + 1, at + 4) for at in (0.0, 0.1, 0.2, 0.3)]
    assert measurement_window([*first, request(4, 5, 8)], 4).kind is WindowKind.WHOLE
    refilled = [request(at, at + 1, at + 4) for at in (4.0, 4.1, 4.2, 4.3)]
    assert measurement_window([*first, *refilled], 4) == Window(0.3, 4.3, WindowKind.STEADY)


def test_a_steady_open_loop_delivers_what_arrives() -> None:
    timings = [request(0.05 * index, 0.05 * index + 0.02, 0.05 * index + 1.02) for index in range(600)]
    assert throughput(timings, measurement_window(timings, None)).requests_per_s == pytest.approx(20, rel=0.01)


def test_no_requests_have_no_window() -> None:
    with pytest.raises(InvalidInputError, match="no requests"):
        measurement_window([], 1)


def test_throughput_counts_what_arrives_in_the_window() -> None:
    timings = [
        RequestTiming(0, None, (1.0, 2.0, 3.0, 4.0), 4.0, 100, 4),
        RequestTiming(2, None, (6.0, 7.0), 7.0, 50, 2),
    ]
    found = throughput(timings, Window(2.0, 5.0, WindowKind.STEADY))
    assert found.output_tokens_per_s == pytest.approx(3 / 3)
    assert found.total_tokens_per_s == pytest.approx(3 / 3), "no first token lies in the window"
    assert found.requests_per_s == pytest.approx(1 / 3)


def test_pieces_of_several_tokens_count_all_of_them() -> None:
    found = throughput([RequestTiming(0, None, (1.0, 2.0), 2.0, 3, 10)], Window(0.0, 1.5, WindowKind.STEADY))
    assert found.output_tokens_per_s == pytest.approx(5 / 1.5)
    assert found.total_tokens_per_s == pytest.approx(8 / 1.5)


@given(timelines())
def test_over_the_whole_run_every_token_is_counted_once(timings: list[RequestTiming]) -> None:
    window = measurement_window(timings, 10**6)
    found = throughput(timings, window)
    assert found.output_tokens_per_s * window.length_s == pytest.approx(sum(timing.output_tokens for timing in timings))
    both = sum(timing.output_tokens + timing.input_tokens for timing in timings)
    assert found.total_tokens_per_s * window.length_s == pytest.approx(both)
    assert found.requests_per_s * window.length_s == pytest.approx(len(timings))


def test_failed_requests_deliver_nothing() -> None:
    timings = [request(0, 1, 2), request(0, 1, 3, error="timeout")]
    window = Window(0, 10, WindowKind.WHOLE)
    assert throughput(timings, window).requests_per_s == pytest.approx(0.1)


def test_goodput_counts_requests_that_meet_every_objective() -> None:
    timings = [
        request(0, 1, 2),
        request(0, 3, 4),
        request(0, 0.5, 9),
        request(0, 0.5, 2, error="reset"),
        request(0, 0.1, 0.2, 1),
    ]
    window = Window(0, 10, WindowKind.WHOLE)
    assert goodput_requests_per_s(timings, Slo(), window) == pytest.approx(0.4)
    assert goodput_requests_per_s(timings, Slo(ttft_s=1.0), window) == pytest.approx(0.3)
    assert goodput_requests_per_s(timings, Slo(ttft_s=1.0, tpot_s=0.3), window) == pytest.approx(0.2)


@given(timelines(), st.floats(0.01, 10))
def test_goodput_is_no_more_than_throughput_and_grows_with_the_limit(
    timings: list[RequestTiming], limit: float
) -> None:
    window = measurement_window(timings, 10**6)
    good = goodput_requests_per_s(timings, Slo(e2e_s=limit), window)
    assert good <= throughput(timings, window).requests_per_s + 1e-12
    assert good <= goodput_requests_per_s(timings, Slo(e2e_s=limit * 2), window)


# Two-sided 95 % quantiles as printed in every table of the t distribution.
@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (30, 2.042), (60, 2.000)],
)  # fmt: skip
def test_t_quantiles_agree_with_the_printed_table(degrees: int, quantile: float) -> None:
    assert t_quantile_95(degrees) == pytest.approx(quantile, abs=6e-4)


def test_t_quantiles_agree_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in [*range(1, 40), 101, 1000]:
        assert t_quantile_95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)
    assert t_within(1.3, 7) == pytest.approx(stats.t.cdf(1.3, 7) - stats.t.cdf(-1.3, 7))


def test_the_interval_of_repeats() -> None:
    interval = confidence_interval_95([9.0, 10.0, 11.0])
    assert interval.mean == 10.0
    assert interval.half_width == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert confidence_interval_95([10.0]) is None
    assert confidence_interval_95([1.0, 2.0]).overlaps(confidence_interval_95([3.0, 4.0]))
    assert not confidence_interval_95([1.0, 1.1]).overlaps(confidence_interval_95([9.0, 9.1]))
    with pytest.raises(InvalidInputError, match="degrees"):
        t_quantile_95(0)
