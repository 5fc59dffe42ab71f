"""The routing pass of a server: one request whose prompt is the whole answered sequence but its last token.

Every position is then computed from exactly the tokens that the timed pass had before it, and the log-probabilities
of the prompt tell which token this pass would have chosen at each place. Pure: bodies out, answers in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

from moe_cap.errors import ServerError
from moe_cap.measure.engines.base import Completion, Request


def forced_tokens(request: Request, completion: Completion) -> list[int]:
    """What is sent through once more: nothing was computed from the last output token."""
    return [*request.prompt, *completion.tokens[:-1]]


def forced_body(model: str, tokens: list[int]) -> dict[str, JsonValue]:
    """The request in vLLM's words; one more token is sampled, which is the prediction at the last place."""
    return {
        "model": model,
        "prompt": list(tokens),
        "max_tokens": 1,
        "temperature": 0,
        "ignore_eos": True,
        "prompt_logprobs": 1,
        "return_token_ids": True,
    }


def parse_predicted(answer: Mapping[str, Any], prompt_tokens: int) -> tuple[int, ...]:
    """Greedy token after the prompt and after each output token but the last.

    Args:
        answer: to `forced_body`.
        prompt_tokens: of the timed request.

    Raises:
        ServerError: the answer lacks its token or its prompt's log-probabilities.
    """
    try:
        choice = answer["choices"][0]
        (sampled,) = choice["token_ids"]
        places = choice["prompt_logprobs"][prompt_tokens:]
        chosen = [next(int(token) for token, told in place.items() if told["rank"] == 1) for place in places]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ServerError(f"the server does not tell what it would have said: {error!r}") from error
    return (*chosen, int(sampled))
