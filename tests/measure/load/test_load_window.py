"""What lies inside the window that counters are read around: the load, and nothing that is done for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from load_plans import QUICK, plan_for
from test_endpoint import attach, requests

from moe_cap.errors import ServerError
from moe_cap.measure.engines import endpoint_session
from moe_cap.measure.engines.watched import Unwatched
from moe_cap.measure.level import time_level
from moe_cap.measure.load import ClosedLoop, Limits, constant, run_load
from moe_cap.measure.load import run as loading
from moe_cap.measure.load.stream import StreamReader
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.power import PowerMeter

Serve = Callable[[Behaviour], MockServer]


class Diary:
    """What happened in which order, and when the window was open."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.open_s: list[float] = []

    def told(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def tell(*arguments: Any, **named: Any) -> Any:
            self.events.append(name)
            return function(*arguments, **named)

        return tell

    @contextmanager
    def window(self) -> Iterator[None]:
        self.events.append("open")
        self.open_s.append(monotonic())
        try:
            yield
        finally:
            self.open_s.append(monotonic())
            self.events.append("close")


@pytest.mark.parametrize("arrivals", [ClosedLoop(2), constant(100, 8)], ids=["closed", "open"])
def test_requests_are_encoded_before_the_window_and_the_last_answer_is_read_after_it(
    serve: Serve, arrivals: ClosedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = Diary()
    monkeypatch.setattr(loading, "encode_request", diary.told("encode", loading.encode_request))
    monkeypatch.setattr(StreamReader, "end", diary.told("read", StreamReader.end))
    run = run_load(plan_for(serve(QUICK), arrivals, 8), around=diary.window)
    opened, closed = diary.events.index("open"), diary.events.index("close")
    assert diary.events[:opened] == ["encode"] * 8
    assert set(diary.events[opened + 1 : closed]) <= {"read"}, "answers are read where there is time"
    assert diary.events[closed + 1 :][-1:] == ["read"]
    assert diary.open_s[0] <= run.started_s + min(request.sent_s for request in run.requests)
    assert run.started_s + max(request.ended_s for request in run.requests) <= diary.open_s[1]


def test_the_first_request_is_due_when_the_window_opens(serve: Serve) -> None:
    """Nothing is waited for inside of it: the start of the run is taken there."""
    diary = Diary()
    run = run_load(plan_for(serve(QUICK), ClosedLoop(1), 2), around=diary.window)
    assert diary.open_s[0] <= run.started_s <= diary.open_s[1]
    assert min(request.intended_s for request in run.requests) == 0.0


def test_the_window_of_several_processes_holds_the_load_too(serve: Serve) -> None:
    diary = Diary()
    run = run_load(plan_for(serve(QUICK), ClosedLoop(2), 4, workers=2), around=diary.window)
    assert diary.events == ["open", "close"]
    assert diary.open_s[0] <= run.started_s
    assert run.started_s + max(request.ended_s for request in run.requests) <= diary.open_s[1]


class Counters:
    """Energy counters that write down when they are read."""

    gpu_indices = (0,)
    cpu_indices = ()

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        self._diary.events.append("open")

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        self._diary.events.append("close")
        return SimpleNamespace(time=2.0, gpu_energy={0: 10.0}, cpu_energy=None, dram_energy=None)


def test_energy_is_that_of_the_load_and_not_of_what_an_endpoint_does_around_it(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters of the server are read, and waited for, before and after."""
    diary = Diary()
    monkeypatch.setattr(endpoint_session, "watch", diary.told("watch", endpoint_session.watch))
    monkeypatch.setattr(loading, "find_peer", diary.told("look up", loading.find_peer))
    monkeypatch.setattr(Unwatched, "steps", diary.told("steps", Unwatched.steps))
    session = attach(serve(QUICK), tmp_path, limits=Limits())
    diary.events.clear()
    session.warm_up(requests(2), 2)
    assert diary.events == ["look up"], "a warm-up is not measured"
    diary.events.clear()
    timed = time_level(session, requests(6), 2, PowerMeter(Counters(diary), None))  # type: ignore[arg-type]
    assert diary.events == ["watch", "look up", "open", "close", "steps"]
    assert timed.energy is not None
    assert timed.energy.total_j == 10.0
    session.stop()


def test_a_load_that_fails_closes_its_window(serve: Serve, tmp_path: Path) -> None:
    diary = Diary()
    session = attach(
        serve(Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.DIE, fault_every=3)), tmp_path, limits=Limits()
    )
    with pytest.raises(ServerError):
        time_level(session, requests(6), 2, PowerMeter(Counters(diary), None))  # type: ignore[arg-type]
    assert diary.events == ["open", "close"]
    session.stop()


def test_a_timed_pass_tells_how_far_it_is(serve: Serve, tmp_path: Path) -> None:
    told: list[float] = []
    session = attach(serve(QUICK), tmp_path, limits=Limits())
    time_level(session, requests(4), 2, PowerMeter(None, "none here"), told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]
    session.warm_up(requests(2), 2)
    assert len(told) == 4, "nobody attends a warm-up"
    session.stop()
