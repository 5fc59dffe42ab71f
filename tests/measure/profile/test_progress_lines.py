"""What a person sees while a profile runs, and of its loads afterwards."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from moe_cap.cli.progress_lines import ProgressLines, duration, told_at_once
from moe_cap.measure.levels import stage_weights
from moe_cap.measure.profile.report import load_text
from moe_cap.measure.profile.run import arrival_warnings
from moe_cap.submission import Submission

SHAPE: dict[str, Any] = {"model": "a/b", "input_tokens": 8, "output_tokens": 4, "num_requests": 12}


def cells(number: int) -> list[Any]:
    asked = Submission(**SHAPE, repeats=2)
    return [SimpleNamespace(submission=asked, fingerprint=f"f{at}", name=f"cell-{at}") for at in range(number)]


def test_a_stage_is_told_once_when_it_begins_and_again_while_it_lasts(capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = cells(1)
    told = ""
    with ProgressLines([cell], {}, every_s=0.05) as lines:
        tell = lines.watch(0, cell)
        tell("loading", 0.0, None)
        tell("loading", 0.0, None)
        until_s = time.monotonic() + 60
        while told.count("\n") < 3 and time.monotonic() < until_s:
            time.sleep(0.01)
            told += capsys.readouterr().err
    first, second, *_ = told.splitlines()
    assert first == "[1/1] cell-0: loading"
    assert second == "[1/1] cell-0: loading, for 1 s"
    time.sleep(0.15)
    capsys.readouterr()
    time.sleep(0.15)
    assert capsys.readouterr().err == "", "nothing after the end"


def test_kept_cells_are_no_work_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr("moe_cap.cli.progress_lines.monotonic", lambda: now_s[0])
    all_cells = cells(3)
    kept: Any = {"f0": None, "f1": None}
    lines = ProgressLines(all_cells, kept)
    tell = lines.watch(2, all_cells[2])
    weights = stage_weights(all_cells[2].submission)
    stages = [
        "loading",
        "warm-up batch 1",
        "timing batch 1 (1/2)",
        "timing batch 1 (2/2)",
        "routing batch 1",
        "writing",
    ]
    assert set(stages) < set(weights)
    for stage in stages:
        tell(stage, 0.5, None)
        now_s[0] += 20.0
    told = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("[3/3] cell-2: ") for line in told] == [
        "loading",
        "warm-up batch 1",
        "timing batch 1 (1/2)",
        "timing batch 1 (2/2) (at least 20 s left)",
        "routing batch 1",
        "writing (100% done, about 1 s left)",
    ]


def test_ctrl_c_is_answered_at_once_and_the_old_handler_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), told_at_once():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    assert "interrupted: stopping what runs" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with told_at_once():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_durations_are_in_the_unit_that_people_take() -> None:
    assert [duration(seconds) for seconds in (0.2, 42, 300, 9000)] == ["1 s", "42 s", "5 min", "2.5 h"]


@pytest.mark.parametrize(
    ("concurrency", "sent", "asked", "text"),
    [
        (4, None, None, "4 in flight"),
        (None, 13.1, 20.0, "20 requests/s asked, 13.1 sent"),
        (None, 20.0, 20.0, "20 requests/s"),
        (None, 2.5, None, "a trace of 2.5 requests/s"),
        (None, None, None, "a trace"),
    ],
)
def test_a_load_shows_the_rate_that_was_asked_beside_the_one_that_was_sent(
    concurrency: int | None, sent: float | None, asked: float | None, text: str
) -> None:
    load = SimpleNamespace(concurrency=concurrency, request_rate_per_s=sent)
    point: Any = SimpleNamespace(load=load, invalid=())
    assert load_text(point, asked) == text
    point.invalid = ("late",)
    assert load_text(point, asked) == f"{text} (invalid)"


def arriving(process: str, rate: float, **keys: Any) -> Submission:
    return Submission.model_validate({**SHAPE, **keys, "arrivals": {"process": process, "rates_per_s": [rate]}})


def test_a_schedule_that_came_out_at_another_rate_is_a_warning() -> None:
    few = {seed: arrival_warnings(arriving("poisson", 20.0, seed=seed)) for seed in range(20)}
    assert sum(map(len, few.values())) > 5, "twelve draws are off by 30 % as a rule"
    told = next(warning for warnings in few.values() for warning in warnings)
    assert told.startswith("poisson arrivals at 20 requests/s were asked for, the 12 that were drawn come at ")
    assert not any(arrival_warnings(arriving("poisson", 20.0, num_requests=20_000, seed=seed)) for seed in range(5))


def test_a_schedule_that_is_not_drawn_is_no_warning() -> None:
    assert arrival_warnings(arriving("constant", 20.0)) == ()
    assert arrival_warnings(Submission(**SHAPE)) == ()
    trace = {"process": "trace", "times_s": [0.0, 1.0]}
    assert arrival_warnings(Submission.model_validate({**SHAPE, "num_requests": None, "arrivals": trace})) == ()
