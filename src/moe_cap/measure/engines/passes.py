"""Forward passes as a client saw them: what each computed, when its tokens arrived, and how long it took. Pure.

A pass lasts from the tokens before it to its own. A busy server, or a busy client, hands over the tokens of several
passes in one piece: those share its time evenly, which leaves every sum as it was, and unless they are surely of one
kind they are mixed and count in no figure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from statistics import fmean, median

from moe_cap.measure.engines.base import Completion, EngineStep, Member, Request
from moe_cap.routing import StepKind

APART = 0.5
"""Arrivals closer than this share of a pass are not told apart: they are of one pass, or came in one piece."""

SAMPLES = 33
"""Tokens of a request that are compared, evenly spaced."""
REACH = 3
"""Passes after its own arrival that are tried for a token: one connection may have been held up."""
FEW = 4
"""Requests that have fewer passes than this in common are placed by single arrivals."""
NEVER = float("inf")
Answer = tuple[Request, Completion]
UNALIGNED = "the tokens' arrivals do not line up to forward passes"


def or_unaligned(steps: Sequence[EngineStep]) -> tuple[tuple[EngineStep, ...], str | None]:
    """Passes that were read off arrivals, and why there are none where there are none."""
    return tuple(steps), None if steps else UNALIGNED


@dataclass(slots=True)
class Pass:
    """One forward pass.

    Attributes:
        prompts: whole prompts that it computed, or parts of them.
        nexts: single tokens that it computed, each gave the next one.
        arrived_s: of the tokens that came out of it; none does where it computed parts of prompts alone.
        new: whose first tokens were among them.
        waited_s: when the request was sent that an idle server waited for; -inf where it was not idle.
        cut_since_s: from when on earlier passes may have computed parts of its prompts; inf where none did.
    """

    prompts: list[Member] = field(default_factory=list)
    nexts: list[Member] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    new: list[Answer] = field(default_factory=list)
    waited_s: float = -NEVER
    cut_since_s: float = NEVER

    @property
    def members(self) -> tuple[Member, ...]:
        """Everything that it computed."""
        return (*self.prompts, *self.nexts)

    @property
    def num_tokens(self) -> int:
        """That it computed."""
        return sum(member.num_tokens for member in self.members)

    @property
    def at_s(self) -> float:
        """When its tokens arrived."""
        return median(self.arrived_s)

    @property
    def kind(self) -> StepKind:
        """By what it computed."""
        if not self.prompts:
            return StepKind.DECODE
        return StepKind.MIXED if self.nexts else StepKind.PREFILL

    def give_first(self, request: Request, done: Completion) -> None:
        """Its first token came out of this pass."""
        self.arrived_s.append(done.token_s[0])
        self.new.append((request, done))

    def give_next(self, request: Request, done: Completion, index: int) -> None:
        """Output token `index`, from 1 on, came out of this pass, which computed the one before it."""
        self.arrived_s.append(done.token_s[index])
        self.nexts.append(Member(request.id, len(request.prompt) + index - 1, 1))


def usual_gap_s(completions: Sequence[Completion]) -> float:
    """Time between two tokens of a request where they came apart; 0 where none did."""
    gaps = [after - before for done in completions for before, after in pairwise(done.token_s) if after > before]
    return median(gaps) if gaps else 0.0


def place(
    answers: Sequence[Completion], token: int, passes: Sequence[Pass], since_s: float, gap_s: float
) -> int | None:
    """Index of the pass that gave every answer its output token `token`; those after it gave the next ones.

    Args:
        answers: of requests that began together.
        token: from which on one pass gave one token of each.
        passes: those that are known, in order, each with arrivals.
        since_s: passes that had arrived by then are not tried.
        gap_s: `usual_gap_s` of the run.

    Returns:
        The number of passes where it was one after them all; None where no place fits, or two do.
    """
    rows = [done.token_s[token:] for done in answers]
    first_s = median(row[0] for row in rows)
    begin, end = (bisect_right(passes, at_s, key=lambda each: each.at_s) for at_s in (since_s, first_s + REACH * gap_s))
    costs = sorted((fmean(_cost_s(row, passes, start, gap_s) for row in rows), start) for start in range(begin, end))
    start = costs[0][1] if costs and costs[0][0] < APART * gap_s else len(passes)
    if start == len(passes):
        clear = not passes or first_s > passes[-1].at_s
    else:
        compared = sum(len(_compared(row, passes, start)) for row in rows)
        clear = all((cost_s - costs[0][0]) * compared >= APART * gap_s for cost_s, _ in costs[1:2])
    edges = [*(done.token_s[:FEW] for done in answers), [one.at_s for one in passes[-FEW:]]]
    few = begin < len(passes) < start + FEW
    return start if clear and not (few and any(_is_in_pieces(edge, gap_s) for edge in edges)) else None


def _is_in_pieces(arrivals: Sequence[float], gap_s: float) -> bool:
    return any(after_s - before_s < APART * gap_s for before_s, after_s in pairwise(arrivals))


def _cost_s(row: Sequence[float], passes: Sequence[Pass], start: int, gap_s: float) -> float:
    """How far the arrivals lie from those of the passes; one that was held up counts no more than a pass."""
    return fmean(min(abs(row[i] - passes[start + i].at_s), gap_s) for i in _compared(row, passes, start))


def _compared(row: Sequence[float], passes: Sequence[Pass], start: int) -> range:
    shared = min(len(row), len(passes) - start)
    return range(0, shared, max(1, shared // SAMPLES))


def timed_steps(passes: Sequence[Pass], gap_s: float) -> tuple[EngineStep, ...]:
    """Passes with their kinds and times, in order; () where the arrivals contradict it.

    Args:
        passes: in order.
        gap_s: `usual_gap_s` of the run.
    """
    steps: list[EngineStep] = []
    before_s = -NEVER
    cut_since_s = [*accumulate((one.cut_since_s for one in reversed(passes)), min)][::-1]
    for piece in _pieces(passes, APART * gap_s):
        began_s, ended_s = max(before_s, piece[0].waited_s), max(one.at_s for one in piece if one.arrived_s)
        step_s = (ended_s - began_s) / len(piece)
        if not 0 < step_s < NEVER:
            return ()
        kind = StepKind.MIXED if cut_since_s[len(steps)] < ended_s else _kind_of(piece)
        steps += [EngineStep(kind, step_s, one.members, logit_rows=len(one.members)) for one in piece]
        before_s = ended_s
    return tuple(steps)


def _kind_of(piece: Sequence[Pass]) -> StepKind:
    """Mixed where it holds both kinds, or several passes of prompts: whose was in which cannot be seen."""
    kinds = {one.kind for one in piece}
    return kinds.pop() if len(kinds) == 1 and sum(bool(one.new) for one in piece) <= 1 else StepKind.MIXED


def _pieces(passes: Sequence[Pass], together_s: float) -> Iterator[list[Pass]]:
    """Passes that arrived together, in order; mostly there is one in a piece. What gave no token goes with the next."""
    piece: list[Pass] = []
    silent: list[Pass] = []
    latest_s = -NEVER
    for one in passes:
        silent.append(one)
        if not one.arrived_s:
            continue
        if piece and one.at_s - latest_s > together_s:
            yield piece
            piece = []
        piece += silent
        silent = []
        latest_s = max(latest_s, one.at_s)
    if piece:
        yield piece
