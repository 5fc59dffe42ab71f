"""The loads of a submission before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from moe_cap.measure.levels import levels_of, seconds_of_arrivals
from moe_cap.submission import parse_submission


def asked(**changes: Any) -> Any:
    arrivals = {"process": "constant", "rates_per_s": [2.0]}
    return parse_submission({"model": "./model", "arrivals": arrivals} | changes)


@pytest.mark.parametrize(("output_tokens", "seconds"), [(64, 30), (1000, 100), (8000, 800)])
def test_an_open_loop_lasts_long_enough_to_be_steady_with_long_answers(output_tokens: int, seconds: float) -> None:
    """At 50 ms a token half of it is left when the first answers are whole."""
    (level,) = levels_of(asked(output_tokens=output_tokens))
    assert level.number == 2 * seconds
    assert seconds >= 2 * 0.05 * output_tokens


def test_a_number_that_was_asked_for_is_kept() -> None:
    (level,) = levels_of(asked(output_tokens=1000, num_requests=20))
    assert level.number == 20


def test_answers_as_long_as_a_datasets_own_are_no_reason_to_send_for_longer() -> None:
    """The limit says nothing of how long they are."""
    task = {"tasks": ["cap_choice"], "lengths": "dataset"}
    assert seconds_of_arrivals(asked(output_tokens=4000, **task)) == 30
