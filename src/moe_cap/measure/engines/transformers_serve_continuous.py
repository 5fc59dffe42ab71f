"""`transformers serve --continuous-batching`: the same server with a paged cache, in which requests join and leave.

Its manager takes the generation settings of the first request that it sees and keeps them for all. A timed server
therefore forbids the end token to everybody, and answers for the accuracy harness come from one that was started anew
and never saw a timed request. Prompts share whole blocks of the cache, which nothing turns off; what was shared is
computed once and told by nobody, so that a prompt that fills a block is refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import LaunchSpec, Request
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.server import Server
from moe_cap.measure.engines.transformers_serve import TransformersServeEngine, TransformersServeSession
from moe_cap.measure.engines.watched import Watching
from moe_cap.measure.load import Prompt
from moe_cap.measure.model_files import ModelFiles
from moe_cap.settings import read_engines_folder

BLOCK, BATCH = "--cb-block-size", "--cb-max-batch-tokens"
BLOCK_TOKENS = 2048
"""Longer than the prompts that it is given, so that none of them fills a block."""
BLOCKS = 32
"""The scheduler holds prompts back while less than 15 % of them are free."""
BATCH_TOKENS = 2048
"""Tokens of one pass at most; a prompt that finds less room left is prefilled in parts."""


class TransformersServeContinuousEngine(TransformersServeEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "transformers-serve-continuous"

    def homes(self) -> tuple[Path, ...]:
        """That of the same server without continuous batching."""
        return (read_engines_folder(os.environ) / TransformersServeEngine.name,)

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """The size of its cache is set: found out by itself it takes all memory, and a long time on a processor."""
        spec = super().launch_spec(files, precision)
        cache = (BLOCK, str(BLOCK_TOKENS), "--cb-num-blocks", str(BLOCKS))
        batch = (BATCH, str(BATCH_TOKENS))
        return replace(spec, argv=(*spec.argv, "--continuous-batching", *cache, *batch))

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> TransformersServeContinuousSession:
        """Requests share its passes."""
        return TransformersServeContinuousSession(self, spec, server, attachment)


def last_number(argv: Sequence[str], option: str) -> int:
    """What a command gives an option that it has: the last one, ours or one that a person appended, is what counts."""
    given = (word.partition("=")[2] or after for word, after in pairwise((*argv, "")) if word.split("=")[0] == option)
    return int(list(given)[-1])


class TransformersServeContinuousSession(TransformersServeSession):
    """A running server; see `moe_cap.measure.engines.base.Session`."""

    def watch(self) -> Watching:
        """Its passes are read off the arrivals."""
        return ByArrivals(last_number(self._spec.argv, BATCH))

    def _prompt_of(self, request: Request) -> Prompt:
        block = last_number(self._spec.argv, BLOCK)
        if len(request.prompt) >= block:
            raise InvalidRunError(
                f"the prompt of request {request.id} fills a block of {block} tokens, which this server "
                "shares between prompts without telling: it may not have been computed"
            )
        return super()._prompt_of(request)

    @cached_property
    def answering_spec(self) -> LaunchSpec:
        """A start of its own: its first request, and with it all of them, may end."""
        return replace(self._spec)


ENGINE = TransformersServeContinuousEngine()
