"""Continuous batching: the tokens of `generate`, and steps that account for every one of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_cap.errors import EngineCrashedError, InvalidRunError, MeasurementError, OutOfMemoryError, RunTimeoutError
from moe_cap.measure.engines import transformers, transformers_continuous
from moe_cap.measure.engines.base import Completion, Member, Request, Session
from moe_cap.measure.engines.transformers_continuous import ENGINE, Scheduled, _carry, steps_of
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.model_files import ModelFiles
from moe_cap.routing import StepKind
from tests.measure.engine_contract import StepContract, make_requests

pytestmark = pytest.mark.model


class TestContinuousEngine(StepContract):
    engine = ENGINE


@pytest.fixture(scope="module")
def session(tiny_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return ENGINE.start(ENGINE.launch_spec(tiny_files, "fp32"), tmp_path_factory.mktemp("engine") / "engine.log")


def test_tokens_are_those_of_generate(session: Session, tiny_files: ModelFiles, tmp_path: Path) -> None:
    requests = make_requests(3, output=12)
    plain = transformers.ENGINE.start(transformers.ENGINE.launch_spec(tiny_files, "fp32"), tmp_path / "log")
    expected = [done.tokens for done in plain.run(requests, 3).completions]
    assert [done.tokens for done in session.run(requests, 3).completions] == expected


def test_requests_of_different_lengths_share_steps(session: Session) -> None:
    requests = [Request("short", (3, 4, 5), 4), Request("long", tuple(range(1, 21)), 9), Request("late", (7, 8), 6)]
    run = session.run(requests, 2)
    check_lengths(requests, run.completions)
    assert any(step.kind is StepKind.MIXED for step in run.steps), "nobody joined a running batch"
    assert max(len(step.members) for step in run.steps) == 2
    assert sum(step.logit_rows for step in run.steps) == 4 + 9 + 6
    computed = sum(member.num_tokens for step in run.steps for member in step.members)
    assert computed == sum(len(request.prompt) + request.output_tokens - 1 for request in requests)


def test_the_record_says_what_the_library_resolved(session: Session) -> None:
    session.run(make_requests(2), 2)
    arguments = session.describe().arguments
    assert arguments["cache_implementation"] == "paged"
    assert arguments["use_async_batching"] is False
    assert arguments["max_batch_tokens"] == 2048
    assert arguments["allow_block_sharing"] is False


def _noted(at_s: float, *members: tuple[str, int, int], finishing: str = "") -> Scheduled:
    return Scheduled(at_s, tuple(Member(*member) for member in members), frozenset(finishing.split()))


def _answered(request_id: str, *token_s: float) -> Completion:
    return Completion(request_id, (1,) * len(token_s), 0.0, token_s, token_s[-1])


def test_a_chunk_without_a_token_ends_when_the_next_pass_is_scheduled() -> None:
    noted = [_noted(1.0, ("a", 0, 4)), _noted(3.0, ("a", 4, 2), finishing="a"), _noted(4.5, ("a", 6, 1), finishing="a")]
    steps = steps_of(noted, [Request("a", (1,) * 6, 2)], [_answered("a", 4.0, 5.0)], lag=1)
    assert [step.kind for step in steps] == [StepKind.PREFILL, StepKind.PREFILL, StepKind.DECODE]
    assert [step.step_s for step in steps] == [2.0, 1.0, 1.0]
    assert [step.logit_rows for step in steps] == [0, 1, 1]


def test_a_wait_for_work_belongs_to_no_step() -> None:
    noted = [_noted(1.0, ("a", 0, 1), finishing="a"), _noted(9.0, ("b", 0, 1), finishing="b")]
    requests = [Request("a", (1,), 1), Request("b", (1,), 1)]
    steps = steps_of(noted, requests, [_answered("a", 2.0), _answered("b", 10.0)], lag=1)
    assert [step.step_s for step in steps] == [1.0, 1.0]


def test_tokens_that_nobody_scheduled_are_refused() -> None:
    noted = [_noted(1.0, ("a", 0, 1), finishing="a")]
    with pytest.raises(InvalidRunError, match="more tokens"):
        steps_of(noted, [Request("a", (1,), 2)], [_answered("a", 2.0, 3.0)], lag=1)
    with pytest.raises(InvalidRunError, match="more often"):
        steps_of(noted * 2, [Request("a", (1,), 1)], [_answered("a", 2.0)], lag=1)


def managed(fatal: Exception | None) -> Any:
    """A manager whose thread lives and gives nothing."""
    return SimpleNamespace(
        add_request=lambda *_, **__: None, start=lambda: None, get_result=lambda timeout: None,
        is_running=lambda: True, background_thread_status=SimpleNamespace(fatal_error=fatal), batch_processor=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fatal", "error", "says"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemoryError, "ran out of memory"),
        (ValueError("no such block"), EngineCrashedError, "no such block"),
        (None, RunTimeoutError, "computed nothing"),
    ],
)
def test_a_thread_that_ends_or_hangs_is_a_named_error(
    monkeypatch: pytest.MonkeyPatch, fatal: Exception | None, error: type[MeasurementError], says: str
) -> None:
    monkeypatch.setattr(transformers_continuous, "SILENCE_S", 0.0)
    with pytest.raises(error, match=says):
        _carry(managed(fatal), [Request("one", (1, 2), 2)], 1)
