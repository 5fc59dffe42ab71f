"""How requests reach an engine.

An in-process engine runs fixed batches: `lock_step` starts `concurrency` requests together, ends them together and
goes on with the next ones: a closed loop whose users wait for each other. A server is driven by a streaming client
with the same signature. Which of them it is, an engine's session knows; the walk never asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.base import Completion, EngineRun, EngineStep, Member, Request, RoutingRows, Session
from moe_cap.routing import StepKind

Batch = Callable[[Sequence[Request]], EngineRun]

BATCHES_PER_LEVEL = 4
REQUESTS_PER_LEVEL = 16
"""At least so many of each where the submission leaves the number open: percentiles over fewer say nothing."""


def requests_for(concurrency: int, asked: int | None) -> int:
    """Requests of one level, whole batches only: a half-empty batch would be another load."""
    wanted = asked if asked is not None else max(REQUESTS_PER_LEVEL, BATCHES_PER_LEVEL * concurrency)
    return -(-wanted // concurrency) * concurrency


def batches(requests: Sequence[Request], concurrency: int) -> list[Sequence[Request]]:
    """The requests that run together, in order."""
    return [requests[start : start + concurrency] for start in range(0, len(requests), concurrency)]


def check_same_shape(requests: Sequence[Request]) -> None:
    """The requests of one batch start together and end together.

    Raises:
        InvalidRunError: they differ in length, so that padding would be measured too.
    """
    if len({(len(request.prompt), request.output_tokens) for request in requests}) != 1:
        raise InvalidRunError(
            "the requests of a lock-step batch differ in length: ask for fixed lengths, a server, or one at a time"
        )


def route_alike(
    session: Session, requests: Sequence[Request], completions: Sequence[Completion]
) -> tuple[RoutingRows, ...]:
    """The routing pass of a lock-step engine over requests of any lengths: those of one shape together."""
    answers = {completion.request_id: completion for completion in completions}
    shapes: dict[tuple[int, int], list[Request]] = {}
    for request in requests:
        shapes.setdefault((len(request.prompt), request.output_tokens), []).append(request)
    return tuple(rows for alike in shapes.values() for rows in session.route(alike, [answers[one.id] for one in alike]))


def lock_step(run_batch: Batch, requests: Sequence[Request], concurrency: int) -> EngineRun:
    """Carry requests in fixed batches, one batch after the other."""
    runs = [run_batch(batch) for batch in batches(requests, concurrency)]
    return EngineRun(
        completions=tuple(completion for run in runs for completion in run.completions),
        steps=tuple(step for run in runs for step in run.steps),
        started_s=runs[0].started_s,
        ended_s=runs[-1].ended_s,
    )


def lock_step_steps(requests: Sequence[Request], started_s: float, token_s: Sequence[float]) -> tuple[EngineStep, ...]:
    """One prefill of all prompts, then one step per further token of all sequences.

    A step lasts from the arrival of the tokens before it (the send, for the prefill) to the arrival of its own.
    """
    prompt = len(requests[0].prompt)
    clock = (started_s, *token_s)
    steps = []
    for index, (before, after) in enumerate(pairwise(clock)):
        kind = StepKind.DECODE if index else StepKind.PREFILL
        first, width = (prompt + index - 1, 1) if index else (0, prompt)
        members = tuple(Member(request.id, first, width) for request in requests)
        steps.append(EngineStep(kind, after - before, members, logit_rows=len(requests)))
    return tuple(steps)


def check_lengths(requests: Sequence[Request], completions: Sequence[Completion]) -> None:
    """Every request was answered, in full, with one arrival time for each token, or for each piece of an untold answer.

    Raises:
        InvalidRunError: one was not; a shorter answer is a lighter load, so its times say nothing about this one.
    """
    answers = {completion.request_id: completion for completion in completions}
    for request in requests:
        answer = answers.get(request.id)
        if answer is None:
            raise InvalidRunError(f"request {request.id} was never answered")
        got, timed = answer.num_tokens, len(answer.token_s)
        all_timed = timed == got if answer.untold is None else 0 < timed <= got
        if answer.error is None and not (got == request.output_tokens and all_timed):
            raise InvalidRunError(
                f"request {request.id} was answered with {got} tokens ({timed} timed)"
                f" instead of {request.output_tokens}"
            )
