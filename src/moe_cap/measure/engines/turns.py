"""Forward passes of a server that computes prompts in passes of their own, as SGLang does unless it is told otherwise.

Its log lists the passes with prompts; a pass without gives every running request its next token and shows in the
arrivals alone. Prompts come first and requests in the order of their sending, so the list says whose prompt, or part of
a prompt, was in which pass. Token k of a request, from the second on, came k - 1 passes without prompts after its first
one: where requests lie against each other is decided over all tokens that they share, as for a server that mixes
(`moe_cap.measure.engines.arrivals`). Where the list or the arrivals contradict this, nothing is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from moe_cap.measure.engines.base import Completion, EngineStep, Member, Request
from moe_cap.measure.engines.passes import APART, Answer, Pass, place, timed_steps, usual_gap_s


@dataclass(frozen=True, slots=True)
class PromptPass:
    """A pass with prompts as the server lists it: of how many requests, and how many of their tokens."""

    requests: int
    tokens: int


def steps_of_turns(
    requests: Sequence[Request], completions: Sequence[Completion], listed: Sequence[PromptPass]
) -> tuple[EngineStep, ...]:
    """The passes that computed these requests, in order; () where they cannot be told.

    Args:
        requests: those that were sent.
        completions: theirs, in the same order, on one clock.
        listed: passes with prompts, in order, no others than theirs.
    """
    answers = list(zip(requests, completions, strict=True))
    if any(done.error is not None or not 2 <= len(done.token_s) == done.num_tokens for _, done in answers):
        return ()
    gap_s = usual_gap_s(completions)
    prompts = _deal(_in_turn(answers, APART * gap_s), listed)
    nexts: list[Pass] = []
    before: dict[int, list[Pass]] = {}
    waiting: list[Pass] = []
    for one in prompts:
        waiting.append(one)
        if one.new:
            start = _begin(one, nexts, gap_s)
            if start is None or start < max(before, default=0):
                return ()
            before.setdefault(start, []).extend(waiting)
            waiting = []
    if waiting or not prompts:
        return ()
    _note_waiting(answers, before, nexts)
    passes = [one for start, each in enumerate(nexts) for one in (*before.get(start, ()), each)]
    return timed_steps(passes, gap_s)


def _in_turn(answers: Sequence[Answer], together_s: float) -> list[Answer]:
    """In the order in which the server took them: by first tokens where those came apart, else by sending."""
    ordered = sorted(answers, key=lambda one: one[1].token_s[0])
    apart = [
        index
        for index, (one, after) in enumerate(pairwise(ordered), start=1)
        if after[1].token_s[0] - one[1].token_s[0] > together_s
    ]
    bounds = [0, *apart, len(ordered)]
    groups = (ordered[begin:end] for begin, end in pairwise(bounds))
    return [one for group in groups for one in sorted(group, key=lambda one: one[1].sent_s)]


def _deal(answers: Sequence[Answer], listed: Sequence[PromptPass]) -> list[Pass]:
    """Prompts in turn as the list says, a part where a pass had no room for more; none where it does not add up."""
    passes: list[Pass] = []
    waiting, computed = deque(answers), 0
    for told in listed:
        one, room = Pass(), told.tokens
        while room and waiting:
            request, done = waiting[0]
            part = min(room, len(request.prompt) - computed)
            one.prompts.append(Member(request.id, computed, part))
            room, computed = room - part, computed + part
            if computed == len(request.prompt):
                waiting.popleft()
                one.give_first(request, done)
                computed = 0
        if room or len(one.prompts) != told.requests:
            return []
        passes.append(one)
    return [] if waiting else passes


def _begin(one: Pass, nexts: list[Pass], gap_s: float) -> int | None:
    """Enter the next tokens of its requests; the index of the first pass that gave some, None where it is not clear."""
    since_s = max(*(done.sent_s for _, done in one.new), min(one.arrived_s) - APART * gap_s)
    start = place([done for _, done in one.new], 1, nexts, since_s, gap_s)
    if start is None:
        return None
    for request, done in one.new:
        nexts += [Pass() for _ in range(start + len(done.token_s) - 1 - len(nexts))]
        for index in range(1, len(done.token_s)):
            nexts[start + index - 1].give_next(request, done, index)
    return start


def _note_waiting(answers: Sequence[Answer], before: Mapping[int, Sequence[Pass]], nexts: Sequence[Pass]) -> None:
    """A server was idle before prompts where nobody else runs after them."""
    sent_s = {request.id: done.sent_s for request, done in answers}
    for start, passes in before.items():
        if len(nexts[start].nexts) == sum(len(one.new) for one in passes):
            passes[0].waited_s = min(sent_s[member.request_id] for member in passes[0].prompts)
