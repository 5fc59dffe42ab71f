"""Prompts that a server has computed before: how none is sent to one whose cache is not ours, and how one is noticed.

Engines keep the keys and values of prompts in blocks and find a block only with everything before it, so two prompts
that differ in their first block share nothing (vLLM: hash of the block and of its prefix; SGLang: a radix tree).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moe_cap.result import RawRequest

BLOCK_TOKENS = 16
"""Of vLLM's cache, the smallest that is usual. SGLang shares single tokens: a beginning-of-text, a digit."""
CACHE_WORDS = ("cache", "caching", "radix", "config")
"""In options of vLLM, SGLang and llama-server that turn a prefix cache on, or name a file of further options."""
CACHED_TOLERANCE = 0.01
"""Share of a load's prompt tokens that may come from a cache: so much shorter is its prefill, at most."""


class Opening(Protocol):
    """What stands before the text of a prompt.

    Attributes:
        told: for the description of the load.
        tokens: that it has at most.
    """

    @property
    def told(self) -> str: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102

    def before(self, request_id: str, attempt: int) -> str:
        """For one request of one pass; `attempt` counts the passes of its level."""


@dataclass(frozen=True, slots=True)
class NoOpening:
    """Every pass sends the same prompts: the engine is started here by our arguments alone, with its cache off."""

    told: str = ""
    tokens: int = 0

    def before(self, request_id: str, attempt: int) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A number before every prompt, as in a list of problems, that no other prompt has: a cache finds nothing.

    Twelve digits, so that a chance of two alike is about one in a million for a thousand prompts, and that they and
    what a tokenizer puts before a text lie within the first block even where each digit is a token.

    Attributes:
        run: identity of the run; another run on the same server has other numbers.
    """

    run: str
    told: str = ", each behind a number of its own"
    tokens: int = len("000000000000. ")

    def before(self, request_id: str, attempt: int) -> str:
        """The number."""
        draw = random.Random(f"{self.run}/{request_id}/{attempt}")  # noqa: S311 told apart, not kept secret
        return f"{draw.randrange(10**11, 10**12)}. "


NO_OPENING = NoOpening()


def may_cache(arguments: Sequence[str]) -> bool:
    """Whether a person's arguments to an engine may turn its prefix cache on."""
    return any(word in argument for argument in arguments for word in CACHE_WORDS)


def cached_prompts(requests: Sequence[RawRequest]) -> tuple[str, ...]:
    """Why the times of these requests cannot be believed: whole blocks of their prompts were not computed."""
    cached = sum(told for raw in requests if (told := raw.cached_tokens or 0) >= BLOCK_TOKENS)
    prompts = sum(raw.input_tokens for raw in requests)
    if cached <= CACHED_TOLERANCE * prompts:
        return ()
    return (f"{cached / prompts:.1%} of the prompts' tokens came from the server's prefix cache and were not computed",)
