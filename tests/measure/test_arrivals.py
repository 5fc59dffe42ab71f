"""Passes read off arrivals, against a simulated server whose passes are known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.measure.engines.arrivals import steps_of_arrivals
from moe_cap.measure.engines.base import Completion, Member, Request
from moe_cap.routing import StepKind
from tests.engines.recorded_runs import completions_of, compositions, read_runs, requests_of, whole

STEP_S = 0.01
PLENTY = 10_000
FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = {
    f"{name}, {run['name']}": run
    for name in ("vllm-0.32", "llama-cpp-b11434")
    for run in read_runs(FIXTURES / f"{name}-passes.jsonl")
}
"""Written by tests/engines/record_arrivals.py."""


def simulate(
    requests: Sequence[Request], concurrency: int, seed: int, jitter: float
) -> tuple[list[Completion], list[list[Member]]]:
    """A closed loop on a server that gives every running request a token in every pass; the passes as they were."""
    rng = random.Random(seed)
    waiting, running, now = list(requests), {}, 5.0
    sent: dict[str, float] = {}
    times: dict[str, list[float]] = {request.id: [] for request in requests}
    passes: list[list[Member]] = []
    while waiting or running:
        while waiting and len(running) < concurrency and (not running or rng.random() < 0.7):
            request = waiting.pop(0)
            running[request.id] = request
            sent[request.id] = now - rng.random() * STEP_S / 2
        fresh = sum(not times[name] for name in running)
        now += STEP_S * (1 + 0.1 * len(running) + 0.5 * fresh)
        passes.append([])
        for name, request in list(running.items()):
            done, prompt = len(times[name]), len(request.prompt)
            passes[-1].append(Member(name, prompt + done - 1, 1) if done else Member(name, 0, prompt))
            times[name].append(max(now + rng.random() * jitter, *times[name][-1:], sent[name]))
            if len(times[name]) == request.output_tokens:
                del running[name]
    completions = [
        Completion(r.id, (1,) * r.output_tokens, sent[r.id], tuple(times[r.id]), times[r.id][-1]) for r in requests
    ]
    return completions, passes


def asked(number: int, output: int = 12) -> list[Request]:
    return [Request(f"r{index}", (1,) * (5 + index % 3), output + index % 4) for index in range(number)]


def members(passes: Sequence[Sequence[Member]]) -> list[frozenset[Member]]:
    return [frozenset(one) for one in passes]


@settings(max_examples=60)
@given(st.integers(1, 8), st.integers(1, 24), st.integers(0, 10**6), st.floats(0, 0.3))
def test_passes_are_those_of_the_server(concurrency: int, number: int, seed: int, jitter: float) -> None:
    requests = asked(number)
    completions, passes = simulate(requests, concurrency, seed, jitter * STEP_S)
    steps = steps_of_arrivals(requests, completions, PLENTY)
    assert members([step.members for step in steps]) == members(passes)
    for step in steps:
        new = sum(member.first_position == 0 for member in step.members)
        kinds = {0: StepKind.DECODE, len(step.members): StepKind.PREFILL}
        assert step.kind is kinds.get(new, StepKind.MIXED)


def test_times_of_decode_steps_are_those_of_the_server() -> None:
    requests = asked(4)
    completions, _ = simulate(requests, 1, 0, 0.0)
    decode = [step for step in steps_of_arrivals(requests, completions, PLENTY) if step.kind is StepKind.DECODE]
    assert [step.step_s for step in decode] == pytest.approx([1.1 * STEP_S] * len(decode))


def test_a_prompt_that_may_have_been_cut_makes_its_passes_mixed() -> None:
    requests = asked(2)
    completions, _ = simulate(requests, 2, 1, 0.0)
    steps = steps_of_arrivals(requests, completions, batched_tokens=5)
    last_first_token_s = max(completion.token_s[0] for completion in completions)
    until = [step for step, at in zip(steps, sorted({t for c in completions for t in c.token_s}), strict=True)
             if at <= last_first_token_s]  # fmt: skip
    assert {step.kind for step in until} == {StepKind.MIXED}
    assert {step.kind for step in steps[len(until) :]} == {StepKind.DECODE}


def test_a_prompt_is_cut_where_another_one_left_too_little_room() -> None:
    # Of 8 tokens a pass: the first computes one prompt of 5 and 3 tokens of the other, the second the rest of that.
    requests = [Request("r0", (1,) * 5, 6), Request("r1", (1,) * 5, 6)]
    completions = [
        Completion(request.id, (1,) * 6, 5.0, times, times[-1])
        for request, times in zip(
            requests, ((5.1, 5.2, 5.3, 5.4, 5.5, 5.6), (5.2, 5.3, 5.4, 5.5, 5.6, 5.7)), strict=True
        )
    ]
    cut = [step.kind for step in steps_of_arrivals(requests, completions, batched_tokens=8)]
    assert cut == [StepKind.MIXED] * 2 + [StepKind.DECODE] * 5
    whole = [step.kind for step in steps_of_arrivals(requests, completions, batched_tokens=10)]
    assert whole == [StepKind.PREFILL, StepKind.MIXED] + [StepKind.DECODE] * 5


def in_pieces(done: Completion, rng: random.Random, share: float) -> Completion:
    """As a busy server hands tokens over: some wait for the next one."""
    times = list(done.token_s)
    for index in reversed(range(len(times) - 1)):
        if rng.random() < share:
            times[index] = times[index + 1]
    return replace(done, token_s=tuple(times))


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 16), st.integers(0, 10**6))
def test_tokens_that_come_in_pieces_leave_members_and_sums_as_they_were(
    concurrency: int, number: int, seed: int
) -> None:
    requests, rng = asked(number, output=30), random.Random(seed)
    completions, passes = simulate(requests, concurrency, seed, 0.0)
    pieces = [in_pieces(done, rng, 0.15) for done in completions]
    steps = steps_of_arrivals(requests, pieces, PLENTY)
    if steps:
        assert members([step.members for step in steps]) == members(passes)


def test_passes_of_one_piece_share_its_time() -> None:
    requests = asked(1)
    (done,), _ = simulate(requests, 1, 0, 0.0)
    bunched = replace(done, token_s=tuple(done.token_s[index // 4 * 4 + 3] for index in range(len(done.token_s))))
    apart, together = (steps_of_arrivals(requests, [one], PLENTY) for one in (done, bunched))
    assert sum(step.step_s for step in apart) == pytest.approx(sum(step.step_s for step in together))
    assert [step.kind for step in together] == [StepKind.MIXED] * 4 + [StepKind.DECODE] * 8
    assert [step.step_s for step in together[4:]] == pytest.approx([1.1 * STEP_S] * 8)


def test_a_failed_request_tells_no_passes() -> None:
    requests = asked(2)
    completions, _ = simulate(requests, 2, 0, 0.0)
    assert steps_of_arrivals(requests, [completions[0], replace(completions[1], error="died")], PLENTY) == ()


@pytest.mark.parametrize("run", RECORDED.values(), ids=RECORDED)
def test_passes_of_real_servers_are_those_that_they_wrote_down(run: dict[str, Any]) -> None:
    requests = requests_of(run)
    assert whole(run["passes"], requests)
    steps = steps_of_arrivals(requests, completions_of(run), PLENTY)
    assert compositions(steps) == run["passes"]
