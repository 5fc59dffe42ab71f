"""An engine without a model: tokens, experts and times by fixed rules, on a clock that only it moves.

It passes the same contract suite as the real engines, so what stands above the waist can be tested to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.base import (
    Capabilities,
    Completion,
    Continuation,
    EngineRun,
    LaunchSpec,
    Request,
    RoutingRows,
    Score,
    Tokenizer,
)
from moe_cap.measure.lock_step import check_same_shape, lock_step, lock_step_steps
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.precision import StoragePlan, storage_of, stored_bytes
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource

END = 256
PREFILL_TOKEN_S, DECODE_S, DECODE_SEQUENCE_S, BETWEEN_S = 0.001, 0.010, 0.0005, 0.001
"""Seconds of a prefill per token, of a decode step, more of it per sequence, and between two batches."""
MAX_TOKENS = 2048
LN_VOCABULARY = math.log(257)


def next_token(token: int, position: int) -> int:
    """What follows `token` at `position`: a lower-case letter, a space or a line break."""
    return (ord("a") + (7 * token + position) % 26) if position % 5 else (ord("\n") if position % 20 == 0 else ord(" "))


def experts_of(token: int, layer: int, num_experts: int, top_k: int) -> list[int]:
    """Where a token is sent: `top_k` neighbours, from an expert on that token and layer decide."""
    return [(5 * token + 3 * layer + choice) % num_experts for choice in range(top_k)]


class ByteTokenizer:
    """One token per byte of UTF-8, and one that ends a text."""

    name = "bytes"
    end_token = END
    prefix_token = END

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        """The bytes; no special tokens are ever added."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        """The text; broken characters are replaced."""
        text = bytes(token for token in tokens if token < END).decode(errors="replace")
        return text + ("<end>" if special_tokens and END in tokens else "")


class FakeEngine:
    """The engine as a description."""

    name = "fake"

    def probe(self) -> Capabilities:
        """Always there."""
        return Capabilities(installed=True, reason=None, version="1", routing=RoutingSource.LOCK_STEP)

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """Nothing to decide."""
        if precision not in ENGINES[self.name].precisions:
            raise SubmissionError(f"the fake engine has no precision {precision!r}", field="precision")
        return LaunchSpec(files=files, precision=precision)

    def start(self, spec: LaunchSpec, log: Path) -> FakeSession:
        """Ready at once."""
        log.touch()
        return FakeSession(spec)


@dataclass(slots=True)
class FakeClock:
    """Seconds that pass only when told to."""

    now_s: float = 0.0

    def advance(self, seconds: float) -> float:
        """Move on, and the new time."""
        self.now_s += seconds
        return self.now_s


class FakeSession:
    """The running fake.

    Args:
        spec: how it was started.
        follow: which token follows a token at a position; tests give another one to make two passes disagree.
    """

    def __init__(self, spec: LaunchSpec, follow: Callable[[int, int], int] = next_token) -> None:
        self.clock = FakeClock()
        self.stopped = False
        self._spec = spec
        self._follow = follow
        self._architecture = parse_config(spec.files.config)

    @property
    def tokenizer(self) -> Tokenizer:
        """Bytes."""
        return ByteTokenizer()

    @property
    def max_tokens(self) -> int:
        """Fixed."""
        return MAX_TOKENS

    def describe(self) -> EngineRecord:
        """What little there is."""
        storage = self.storage(self._architecture)
        return EngineRecord(
            name="fake",
            version="1",
            arguments={"device": "cpu"},
            weights_dtype=self._spec.precision,
            kv_dtype=storage.kv.name,
            compute_dtype=storage.compute_dtype,
        )

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As the precision's name says."""
        return storage_of(architecture, self._spec.precision)

    def weights_bytes(self) -> float:
        """As the accounting counts them."""
        return float(stored_bytes(self._architecture, self.storage(self._architecture)))

    def warm_up(self, requests: Sequence[Request], concurrency: int) -> None:
        """Moves the clock as a batch would."""
        self._batch(requests[:concurrency])

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """Fixed batches."""
        return lock_step(self._batch, requests, concurrency)

    def _batch(self, requests: Sequence[Request]) -> EngineRun:
        check_same_shape(requests)
        started_s = self.clock.advance(BETWEEN_S)
        prompt_tokens = sum(len(request.prompt) for request in requests)
        times = [self.clock.advance(PREFILL_TOKEN_S * prompt_tokens)]
        for _ in range(requests[0].output_tokens - 1):
            times.append(self.clock.advance(DECODE_S + DECODE_SEQUENCE_S * len(requests)))
        completions = tuple(
            Completion(
                request.id, self._continue(request.prompt, request.output_tokens), started_s, tuple(times), times[-1]
            )
            for request in requests
        )
        return EngineRun(completions, lock_step_steps(requests, started_s, times), started_s, times[-1])

    def _continue(self, prompt: Sequence[int], number: int) -> tuple[int, ...]:
        tokens = list(prompt)
        for _ in range(number):
            tokens.append(self._follow(tokens[-1], len(tokens)))
        return tuple(tokens[len(prompt) :])

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """By the rule, for every token but the last."""
        if not self._architecture.moe_blocks:
            return ()
        return tuple(self._rows(request, completion) for request, completion in zip(requests, completions, strict=True))

    def _rows(self, request: Request, completion: Completion) -> RoutingRows:
        tokens = [*request.prompt, *completion.tokens]
        blocks = self._architecture.moe_blocks
        ids = [
            [experts_of(token, layer, block.num_experts, block.top_k) for layer, block in enumerate(blocks)]
            for token in tokens[:-1]
        ]
        first = len(request.prompt)
        predicted = tuple(self._follow(tokens[at - 1], at) for at in range(first, len(tokens)))
        return RoutingRows(request.id, np.array(ids, dtype=np.int16), predicted)

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """Half of the probability for the token of the rule, the rest for all others alike."""
        return [self._score(item) for item in continuations]

    def _score(self, item: Continuation) -> Score:
        tokens = [*item.context, *item.continuation]
        right = [self._follow(tokens[at - 1], at) == tokens[at] for at in range(len(item.context), len(tokens))]
        log_probability = sum(-math.log(2) if hit else -math.log(2) - LN_VOCABULARY for hit in right)
        return Score(log_probability, all(right))

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """The rule's text up to the first stop text."""
        answers = [ByteTokenizer().decode(self._continue(prompt, max_tokens)) for prompt in prompts]
        return [min((text.partition(end)[0] for end in stop), key=len, default=text) for text in answers]

    def stop(self) -> None:
        """Nothing was started."""
        self.stopped = True


ENGINE = FakeEngine()
