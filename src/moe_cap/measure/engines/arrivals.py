"""Forward passes of a continuously batching server, read off the arrivals of its tokens; nothing is in the server.

Such a server gives every running request one token in every pass, so token k of a request came k passes after its
first one. What has to be found is how the requests lie against each other: the offset at which their arrivals
coincide, decided over all tokens that two requests have in common. The members of every pass follow, and its time is
from the tokens before it to its own. Where the arrivals do not line up nothing is told: no steps are better than wrong
ones. Recorded passes of real servers are what this is tested against (tests/engines). A server that decodes
speculatively gives several tokens in a pass and must not be read this way; one that computes prompts in passes of their
own is read by `moe_cap.measure.engines.turns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from moe_cap.measure.engines.base import Completion, EngineStep, Member, Request
from moe_cap.measure.engines.passes import NEVER, Answer, Pass, or_unaligned, place, timed_steps, usual_gap_s


@dataclass(frozen=True, slots=True)
class ByArrivals:
    """A server of ours that serves nobody else; see `moe_cap.measure.engines.watched.Watching`.

    Attributes:
        batched_tokens: as `steps_of_arrivals` takes it.
    """

    batched_tokens: float

    def steps(
        self, requests: Sequence[Request], completions: Sequence[Completion], _chunks: int
    ) -> tuple[tuple[EngineStep, ...], str | None]:
        """The passes of the load that has just ended, or () and why they are not known."""
        return or_unaligned(steps_of_arrivals(requests, completions, self.batched_tokens))


def steps_of_arrivals(
    requests: Sequence[Request], completions: Sequence[Completion], batched_tokens: float
) -> tuple[EngineStep, ...]:
    """The passes that computed these requests, in order; () where the arrivals do not tell.

    Args:
        requests: those that were sent.
        completions: theirs, in the same order, on one clock.
        batched_tokens: that the server takes into one pass at most. A prompt that may have been cut makes the passes
            since its request was sent mixed ones, which count in no figure.
    """
    answered = sorted(zip(requests, completions, strict=True), key=lambda pair: pair[1].token_s[:1])
    if any(done.error is not None or not 2 <= len(done.token_s) == done.num_tokens for _, done in answered):
        return ()
    passes: list[Pass] = []
    gap_s = usual_gap_s(completions)
    for request, done in answered:
        start = place([done], 0, passes, done.sent_s, gap_s)
        if start is None:
            return ()
        _enter(passes, start, request, done)
    for index, one in enumerate(passes):
        sent_s = [answer[1].sent_s for answer in one.new if _may_be_cut(answer, passes, index, batched_tokens)]
        one.cut_since_s = min(sent_s, default=NEVER)
        if not one.nexts:
            one.waited_s = min(done.sent_s for _, done in one.new)
    return timed_steps(passes, gap_s)


def _enter(passes: list[Pass], start: int, request: Request, done: Completion) -> None:
    passes += [Pass() for _ in range(start + len(done.token_s) - len(passes))]
    passes[start].prompts.append(Member(request.id, 0, len(request.prompt)))
    passes[start].give_first(request, done)
    for index in range(1, len(done.token_s)):
        passes[start + index].give_next(request, done, index)


def _may_be_cut(one: Answer, passes: Sequence[Pass], index: int, batched_tokens: float) -> bool:
    """Whether some pass since the request was sent had no room for the whole prompt: it may have taken a part of it."""
    request, done = one
    if passes[index].num_tokens > batched_tokens:
        return True
    before = takewhile(lambda each: each.at_s > done.sent_s, (passes[at] for at in range(index - 1, -1, -1)))
    return any(each.num_tokens + len(request.prompt) > batched_tokens for each in before)
