"""Forward passes of a continuously batching server, read off the arrivals of its tokens; nothing is in the server.

Such a server gives every running request one token in every pass, so token k of a request came k passes after its
first one. What has to be found is how the requests lie against each other: the offset at which their arrivals
coincide, decided over all tokens that two requests have in common. The members of every pass follow, and its time is
from the tokens before it to its own. A busy server hands over several tokens in one piece: their passes share the time
between them evenly, which leaves every sum as it was. Where the arrivals do not line up nothing is told: no steps are
better than wrong ones. Recorded passes of real servers are what this is tested against (tests/engines). A server that
decodes speculatively gives several tokens in a pass and must not be read this way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from moe_cap.measure.engines.base import Completion, EngineStep, Member, Request
from moe_cap.routing import StepKind

REACH = 3
"""Passes on either side of the nearest one that are tried for a request's first token."""
SAMPLES = 33
"""Tokens of a request that are compared, evenly spaced."""
APART = 0.5
"""Arrivals further apart than this share of a request's mean gap are not of one pass."""

FEW = 4
"""Requests that have fewer passes than this in common are placed by single arrivals."""


@dataclass(slots=True)
class _Pass:
    """One forward pass: when its tokens arrived, whose prompts and whose next tokens it computed."""

    arrived_s: list[float] = field(default_factory=list)
    new: list[tuple[Request, Completion]] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    @property
    def at_s(self) -> float:
        return median(self.arrived_s)


def steps_of_arrivals(
    requests: Sequence[Request], completions: Sequence[Completion], batched_tokens: int
) -> tuple[EngineStep, ...]:
    """The passes that computed these requests, in order; () where the arrivals do not tell.

    Args:
        requests: those that were sent.
        completions: theirs, in the same order, on one clock.
        batched_tokens: that the server takes into one pass at most. A prompt that may have been cut makes the passes
            since its request was sent mixed ones, which count in no figure.
    """
    answered = sorted(zip(requests, completions, strict=True), key=lambda pair: pair[1].token_s[:1])
    if any(done.error is not None or len(done.token_s) < 2 for _, done in answered):
        return ()
    passes: list[_Pass] = []
    for request, done in answered:
        start = _place(done, passes)
        if start is None:
            return ()
        _enter(passes, start, request, done)
    return _steps(passes, batched_tokens)


def _place(done: Completion, passes: Sequence[_Pass]) -> int | None:
    """Which pass gave the first token, never one that was over when the request was sent; None where no place fits."""
    token_s = done.token_s
    limit_s = APART * (token_s[-1] - token_s[0]) / (len(token_s) - 1)
    nearest = bisect_left(passes, token_s[0], key=lambda each: each.at_s)
    tried = range(max(0, nearest - REACH), min(len(passes), nearest + REACH + 1))
    places = [(_distance_s(token_s, passes[start:]), start) for start in tried if passes[start].at_s > done.sent_s]
    distance_s, start = min(places, default=(limit_s, len(passes)))
    if distance_s >= limit_s:
        start = len(passes)
    if start == len(passes) and passes and token_s[0] <= passes[-1].at_s:
        return None
    return None if _is_vague(done, passes, start) else start


def _is_vague(done: Completion, passes: Sequence[_Pass], start: int) -> bool:
    """Whether too few arrivals decide: the requests hardly met, and where they did tokens came in pieces."""
    if not passes or passes[-1].at_s <= done.sent_s or len(passes) - start >= FEW:
        return False
    last = [one.at_s for one in passes[-FEW:]]
    return len(set(done.token_s[:FEW])) < len(done.token_s[:FEW]) or len(set(last)) < len(last)


def _distance_s(token_s: Sequence[float], passes: Sequence[_Pass]) -> float:
    """How far the arrivals lie from those of the passes, were the first token of the first of them."""
    shared = min(len(token_s), len(passes))
    chosen = range(0, shared, max(1, shared // SAMPLES))
    return median(abs(token_s[index] - passes[index].at_s) for index in chosen)


def _enter(passes: list[_Pass], start: int, request: Request, done: Completion) -> None:
    passes += [_Pass() for _ in range(start + len(done.token_s) - len(passes))]
    prompt = len(request.prompt)
    for index, at_s in enumerate(done.token_s):
        one = passes[start + index]
        one.arrived_s.append(at_s)
        one.members.append(Member(request.id, prompt + index - 1, 1) if index else Member(request.id, 0, prompt))
    passes[start].new.append((request, done))


def _steps(passes: Sequence[_Pass], batched_tokens: int) -> tuple[EngineStep, ...]:
    steps: list[EngineStep] = []
    before_s = float("-inf")
    cut_since_s = [_cut_since_s(one, batched_tokens) for one in passes]
    for piece in _pieces(passes):
        first = piece[0]
        sent_s = min((done.sent_s for _, done in first.new), default=before_s)
        began_s = before_s if len(first.new) < len(first.members) else max(before_s, sent_s)
        ended_s = max(one.at_s for one in piece)
        step_s = (ended_s - began_s) / len(piece)
        if not 0 < step_s < float("inf"):
            return ()
        cut = any(since_s < ended_s for since_s in cut_since_s[len(steps) :])
        kinds = {_kind(one, cut=cut) for one in piece}
        kind = kinds.pop() if len(kinds) == 1 else StepKind.MIXED
        steps += [EngineStep(kind, step_s, tuple(one.members), logit_rows=len(one.members)) for one in piece]
        before_s = ended_s
    return tuple(steps)


def _pieces(passes: Sequence[_Pass]) -> Iterator[list[_Pass]]:
    """Passes that arrived together, in order; mostly there is one in a piece."""
    piece: list[_Pass] = []
    for one in passes:
        if piece and one.at_s > max(each.at_s for each in piece):
            yield piece
            piece = []
        piece.append(one)
    if piece:
        yield piece


def _cut_since_s(one: _Pass, batched_tokens: int) -> float:
    """From when on parts of this pass's prompts may have been computed in earlier ones; infinity where they fit."""
    if sum(member.num_tokens for member in one.members) <= batched_tokens:
        return float("inf")
    return min((done.sent_s for _, done in one.new), default=float("inf"))


def _kind(one: _Pass, *, cut: bool) -> StepKind:
    if not one.new and not cut:
        return StepKind.DECODE
    return StepKind.PREFILL if len(one.new) == len(one.members) and not cut else StepKind.MIXED
