"""Passes of a server whose prompts have passes of their own: against a simulated one, and against a recorded SGLang."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.measure.engines.base import Completion, EngineStep, Member, Request
from moe_cap.measure.engines.sglang_log import parse_prompt_passes
from moe_cap.measure.engines.turns import PromptPass, steps_of_turns
from moe_cap.routing import StepKind
from tests.engines.recorded_runs import completions_of, read_runs, requests_of
from tests.engines.sglang_passes import as_told, prompts_of

START_S, STEP_S = 5.0, 0.01
FIXTURE = Path(__file__).parent / "fixtures" / "sglang-0.5.23-passes.jsonl"


Span = tuple[float, float]


class Simulated:
    """A closed loop on a server that computes waiting prompts first, at most `chunk` tokens in a pass.

    What it sends within one of the spans `held` arrives at its end: the client, or the server's front, was busy.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        concurrency: int,
        chunk: int,
        *,
        seed: int = 0,
        jitter_s: float = 0.0,
        held: Sequence[Span] = (),
        spacing_s: float = 1e-6,
    ) -> None:
        self.rng = random.Random(seed)
        self.jitter_s, self.held = jitter_s, held
        self.now = START_S
        self.unsent = list(requests)
        self.sent: dict[str, float] = {}
        self.waiting: list[Request] = []
        self.computed: dict[str, int] = {request.id: 0 for request in requests}
        self.running: list[Request] = []
        self.times: dict[str, list[float]] = {request.id: [] for request in requests}
        self.passes: list[frozenset[Member]] = []
        self.listed: list[PromptPass] = []
        self.seconds: list[float] = []
        for index in range(concurrency):
            self.send(START_S + index * spacing_s)
        self.now += 1e-5
        while self.waiting or self.running:
            self.run(chunk)
        self.completions = [
            Completion(r.id, (1,) * r.output_tokens, self.sent[r.id], tuple(self.times[r.id]), self.times[r.id][-1])
            for r in requests
        ]

    def send(self, at_s: float) -> None:
        if self.unsent:
            request = self.unsent.pop(0)
            self.sent[request.id] = max([at_s, *self.sent.values()]) + 1e-6
            self.waiting.append(request)

    def run(self, chunk: int) -> None:
        if not self.running:
            self.now = max(self.now, self.sent[self.waiting[0].id])
        began = self.now
        here = [request for request in self.waiting if self.sent[request.id] <= self.now]
        self.arrive(self.compute_prompts(here, chunk) if here else self.compute_nexts())
        self.seconds.append(self.now - began)

    def compute_prompts(self, here: list[Request], chunk: int) -> list[Request]:
        members, done, room = [], [], chunk
        while here and room:
            request = here[0]
            first = self.computed[request.id]
            part = min(room, len(request.prompt) - first)
            members.append(Member(request.id, first, part))
            self.computed[request.id] += part
            room -= part
            if first + part == len(request.prompt):
                done.append(here.pop(0))
        self.now += STEP_S * (1 + 0.02 * (chunk - room))
        self.passes.append(frozenset(members))
        self.listed.append(PromptPass(len(members), chunk - room))
        self.waiting = [request for request in self.waiting if request not in done]
        self.running += done
        return done

    def compute_nexts(self) -> list[Request]:
        self.now += STEP_S * (1 + 0.1 * len(self.running))
        self.passes.append(frozenset(Member(r.id, len(r.prompt) + len(self.times[r.id]) - 1, 1) for r in self.running))
        return list(self.running)

    def arrive(self, requests: Sequence[Request]) -> None:
        for request in requests:
            times = self.times[request.id]
            at_s = self.now + self.rng.random() * self.jitter_s
            times.append(max(next((end for begin, end in self.held if begin <= at_s <= end), at_s), *times[-1:], 0.0))
            if len(times) == request.output_tokens:
                self.running.remove(request)
                self.send(times[-1])


def asked(number: int, output: int = 12) -> list[Request]:
    return [Request(f"r{index}", (1,) * (5 + 7 * index % 30), output + index % 4) for index in range(number)]


def members(steps: Sequence[EngineStep]) -> list[frozenset[Member]]:
    return [frozenset(step.members) for step in steps]


@settings(max_examples=60)
@given(
    st.integers(1, 8),
    st.integers(1, 24),
    st.sampled_from([9, 40, 1000]),
    st.integers(0, 10**6),
    st.floats(0, 0.3),
    st.floats(0.01, 2),
)
def test_passes_are_those_of_the_server(
    concurrency: int, number: int, chunk: int, seed: int, jitter: float, spacing: float
) -> None:
    requests = asked(number)
    server = Simulated(requests, concurrency, chunk, seed=seed, jitter_s=jitter * STEP_S, spacing_s=spacing * STEP_S)
    steps = steps_of_turns(requests, server.completions, server.listed)
    assert members(steps) == server.passes
    for step in steps:
        prompts = {member.first_position < len(requests[int(member.request_id[1:])].prompt) for member in step.members}
        assert step.kind is {True: StepKind.PREFILL, False: StepKind.DECODE}[prompts.pop()]
        assert not prompts


@given(st.integers(1, 8), st.integers(1, 24))
def test_times_are_those_of_the_server_where_every_prompt_fits(concurrency: int, number: int) -> None:
    requests = asked(number)
    server = Simulated(requests, concurrency, 1000)
    steps = steps_of_turns(requests, server.completions, server.listed)
    assert [step.step_s for step in steps] == pytest.approx(server.seconds, rel=2e-3)


def test_parts_of_a_prompt_share_the_time_until_its_first_token() -> None:
    requests = [Request("r0", (1,) * 25, 4)]
    server = Simulated(requests, 1, 10)
    steps = steps_of_turns(requests, server.completions, server.listed)
    assert [step.members[0].num_tokens for step in steps] == [10, 10, 5, 1, 1, 1]
    assert [step.step_s for step in steps[:3]] == pytest.approx([sum(server.seconds[:3]) / 3] * 3, rel=1e-3)
    assert [step.kind for step in steps] == [StepKind.PREFILL] * 3 + [StepKind.DECODE] * 3


@settings(max_examples=60)
@given(
    st.integers(1, 8),
    st.integers(1, 16),
    st.sampled_from([9, 1000]),
    st.lists(st.tuples(st.floats(0, 150), st.floats(0, 8)), max_size=4),
)
def test_tokens_held_up_tell_the_truth_or_nothing(
    concurrency: int, number: int, chunk: int, passes: list[tuple[float, float]]
) -> None:
    requests = asked(number, output=20)
    held = [(START_S + begin * STEP_S, START_S + (begin + length) * STEP_S) for begin, length in passes]
    server = Simulated(requests, concurrency, chunk, held=held)
    steps = steps_of_turns(requests, server.completions, server.listed)
    if steps:
        assert members(steps) == server.passes
        assert sum(step.step_s for step in steps) <= max(done.ended_s for done in server.completions) - START_S + 1e-9


def test_prompts_and_next_tokens_in_one_piece_are_mixed() -> None:
    requests = [Request("r0", (1,) * 5, 8)]
    server = Simulated(requests, 1, 1000, held=[(START_S, START_S + 3.4 * STEP_S)])
    steps = steps_of_turns(requests, server.completions, server.listed)
    assert [step.kind for step in steps] == [StepKind.MIXED] * 3 + [StepKind.DECODE] * 5
    assert sum(step.step_s for step in steps[:3]) == pytest.approx(3.4 * STEP_S, rel=1e-3)


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [PromptPass(1, 5)],
        [PromptPass(2, 18)],
        [PromptPass(2, 17), PromptPass(1, 5)],
        [PromptPass(3, 17)],
        [PromptPass(1, 4), PromptPass(1, 13)],
    ],
    ids=["no list", "one is missing", "too many tokens", "one too many", "too many requests", "parts of nobody"],
)
def test_a_list_of_prompts_that_does_not_add_up_tells_no_passes(listed: list[PromptPass]) -> None:
    requests = asked(2)
    server = Simulated(requests, 2, 1000)
    assert server.listed == [PromptPass(2, 17)]
    assert steps_of_turns(requests, server.completions, listed) == ()


def test_a_failed_request_or_a_single_token_tells_no_passes() -> None:
    requests = asked(2)
    server = Simulated(requests, 2, 1000)
    first, second = server.completions
    for odd in (replace(second, error="died"), replace(second, tokens=(1,), token_s=second.token_s[:1])):
        assert steps_of_turns(requests, [first, odd], server.listed) == ()


@pytest.mark.parametrize("run", read_runs(FIXTURE), ids=lambda run: run["name"])
def test_passes_of_sglang_are_those_that_it_told_itself(run: dict[str, Any]) -> None:
    requests = requests_of(run)
    steps = steps_of_turns(requests, completions_of(run), parse_prompt_passes("\n".join(run["log"])))
    assert [as_told(step, prompts_of(requests)) for step in steps] == list(map(tuple, run["passes"]))
    assert sum(step.kind is not StepKind.MIXED for step in steps) > len(steps) / 2
