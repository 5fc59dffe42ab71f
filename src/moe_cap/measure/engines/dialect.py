"""Which of the fields beyond the standard a server takes: the more, the more exactly it can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import JsonValue

from moe_cap.errors import ServerError
from moe_cap.measure.engines.base import Tokenizer
from moe_cap.measure.load import ClosedLoop, Limits, LoadPlan, Prompt, Rules, Target, TokenCounting, run_load

GREETING = "A mixture of experts sends every token to a few of many small networks, and reads only those."
"""Counted by the server and by the model's own tokenizer; the two must agree."""

UNTIMED = Rules(max_lag_s=float("inf"), max_beat_lag_s=float("inf"), max_failed_share=1.0, max_degenerate_share=1.0)
REFUSALS = frozenset({400, 422})


@dataclass(frozen=True, slots=True)
class Dialect:
    """Fields beyond the standard that a server takes; the more it tells, the more exactly it can be measured.

    Attributes:
        tells: how many tokens a chunk holds is known by this; None where whatever the server tells will do.
    """

    name: str
    running_usage: bool
    extra: Mapping[str, JsonValue]
    tells: TokenCounting | None = None


DIALECTS = (
    Dialect("token ids", running_usage=False, extra={"return_token_ids": True}, tells=TokenCounting.TOKEN_IDS),
    Dialect("running usage", running_usage=True, extra={}),
    Dialect("final usage only", running_usage=False, extra={}),
)
"""Tried in this order when a session begins; a refusal of the fields (400, 422), or silence about them, takes the next.

The server writes what is asked for into every chunk, while it is timed: token ids are a count already.
"""


def brief(limits: Limits) -> Limits:
    """For an answer of two tokens: as long as the server may be silent before each of them, and no longer."""
    return replace(limits, request_s=min(limits.request_s, 2 * limits.silence_s))


def agree_on_dialect(target: Target, tokenizer: Tokenizer, limits: Limits) -> Dialect:
    """The first dialect that the server takes and answers in, tried with a request of two tokens.

    Raises:
        ServerError: it refuses every one, or fails.
        InvalidRunError: it counts other tokens than the model's own tokenizer.
    """
    prompt = Prompt(GREETING, 2, input_tokens=len(tokenizer.encode(GREETING)))
    refusal = ""
    for dialect in DIALECTS:
        spoken = replace(target, running_usage=dialect.running_usage, extra=dialect.extra)
        run = run_load(LoadPlan(spoken, [prompt], ClosedLoop(1), limits=limits, rules=UNTIMED))
        answer = run.requests[0]
        if answer.failure is None:
            run.require_valid()
            if dialect.tells in {None, answer.counting}:
                return dialect
        elif answer.failure.status not in REFUSALS:
            raise ServerError(f"{target.url}: {answer.failure}")
        refusal = str(answer.failure)
    raise ServerError(f"{target.url} refuses every form of request, the plainest with {refusal}")
