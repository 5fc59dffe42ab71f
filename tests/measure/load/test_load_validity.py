import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import InvalidInputError
from moe_cap.measure.load import ClosedLoop, RequestEvents, Rules, TokenCounting, Usage, constant
from moe_cap.measure.load.drive import Saturation
from moe_cap.measure.load.validity import broken_rules, is_degenerate, peak_concurrency

CALM = Saturation(beat_lag_s=(0.0,) * 200, read_lag_s=(), busy_share=0.1, cpu_share=0.1)


def request(sent_s: float, ended_s: float, **changes: object) -> RequestEvents:
    told: dict[str, object] = {
        "id": "r", "prompt_index": 0, "intended_s": sent_s, "sent_s": sent_s, "connected_s": None, "headers_s": sent_s,
        "chunk_s": (ended_s, ended_s), "chunk_tokens": (1, 1), "counting": TokenCounting.ONE_PER_CHUNK,
        "ended_s": ended_s,
        "status": 200, "finish_reason": "length", "usage": Usage(3, 2), "first_answer_s": ended_s,
        "reasoning_tokens": 0,
        "text": "two words", "token_ids": None, "failure": None, "asked_input_tokens": 3, "asked_output_tokens": 2,
    }  # fmt: skip
    return RequestEvents(**(told | changes))  # type: ignore[arg-type]


def verdict(*requests: RequestEvents, saturation: Saturation = CALM, exact_lengths: bool = True) -> tuple[str, ...]:
    arrivals = ClosedLoop(peak_concurrency(requests))
    return broken_rules(requests, arrivals, [saturation], Rules(), exact_lengths=exact_lengths)


def test_a_good_run_breaks_no_rule() -> None:
    assert verdict(request(0, 1), request(1, 2)) == ()


def test_one_late_request_in_a_thousand_is_borne_and_two_in_a_hundred_are_not() -> None:
    late = request(5.0, 6.0, intended_s=4.0)
    on_time = [request(index, index + 0.5) for index in range(1000)]
    assert verdict(*on_time, late) == ()
    assert "1000.0 ms late" in verdict(*on_time[:98], late, late)[0]


def test_a_loop_that_was_late_itself_limits_the_run() -> None:
    slow = Saturation(beat_lag_s=(0.0,) * 90 + (0.2,) * 10, read_lag_s=(), busy_share=0.99, cpu_share=1.0)
    assert "busy for 99%" in verdict(request(0, 1), saturation=slow)[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"usage": Usage(3, 1), "chunk_s": (1.0,), "chunk_tokens": (1,)}, "1 tokens answered where 2 were asked"),
        ({"usage": Usage(4, 2)}, "4 tokens in a prompt of 3"),
        ({"usage": None}, "told no usage"),
        ({"chunk_tokens": (1, 2)}, "3 tokens arrived where the server counted 2"),
        ({"chunk_s": (1.0,), "chunk_tokens": (1,), "counting": TokenCounting.RUNNING_USAGE}, "1 tokens arrived"),
        ({"text": "!!!!"}, "blank or one character"),
    ],
)
def test_an_answer_that_does_not_add_up_is_told(changes: dict[str, object], says: str) -> None:
    assert any(says in reason for reason in verdict(request(0, 1, **changes)))


def test_chunks_of_unknown_size_may_be_fewer_than_tokens() -> None:
    chunk = {"chunk_s": (1.0,), "chunk_tokens": (1,), "counting": TokenCounting.UNKNOWN}
    assert verdict(request(0, 1, **chunk)) == ()


def test_free_lengths_are_not_held_against_the_limit() -> None:
    assert verdict(request(0, 1, asked_output_tokens=50), exact_lengths=False) == ()


def test_a_prompt_that_nobody_counted_cannot_be_counted_wrong() -> None:
    assert verdict(request(0, 1, asked_input_tokens=None)) == ()


def test_a_concurrency_that_was_never_reached_is_told() -> None:
    found = broken_rules([request(0, 1), request(1, 2)], ClosedLoop(2), [CALM], Rules(), exact_lengths=True)
    assert found == ("2 requests were to be under way at once, 1 were observed",)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 10)), min_size=1, max_size=40))
def test_peak_concurrency_is_the_most_that_overlap_at_any_send(spans: list[tuple[float, float]]) -> None:
    requests = [request(start, start + length) for start, length in spans]
    overlapping = [
        sum(other.sent_s <= one.sent_s < other.ended_s for other in requests) for one in requests
    ]  # every maximum begins with a send
    assert peak_concurrency(requests) == max(overlapping)


@given(st.text(alphabet="ab \n!", max_size=12))
def test_degenerate_is_at_most_one_visible_character(text: str) -> None:
    assert is_degenerate(text) == (len(set(text) - {" ", "\n"}) <= 1)


@given(st.integers(1, 64), st.integers(1, 64))
def test_workers_share_a_concurrency_without_loss(concurrency: int, workers: int) -> None:
    if workers > concurrency:
        with pytest.raises(InvalidInputError):
            ClosedLoop(concurrency).split(workers)
        return
    parts = [part.concurrency for part in ClosedLoop(concurrency).split(workers)]
    assert sum(parts) == concurrency
    assert max(parts) - min(parts) <= 1


@given(st.integers(1, 200), st.integers(1, 8))
def test_workers_share_arrivals_without_loss(count: int, workers: int) -> None:
    whole = constant(10.0, count)
    if workers <= count:
        assert sorted(at for part in whole.split(workers) for at in part.arrivals_s) == list(whole.arrivals_s)
