"""transformers with continuous batching: a paged cache, and a scheduler that lets requests join and leave at any step.

Driven as its users drive it, through the manager that `model.init_continuous_batching` gives, in a closed loop. The
scheduler that runs is the library's own, entered under another name in the library's table of schedulers by a subclass
that notes who was scheduled: a tuple per request and pass, nothing on the device. When tokens came is told by the
library (`record_timestamps`). Blocks are not shared between prompts, so every position is computed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import JsonValue
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

from moe_cap.errors import EngineCrashedError, InvalidRunError, OutOfMemoryError, RunTimeoutError
from moe_cap.measure.engines.base import Completion, EngineRun, EngineStep, LaunchSpec, Member, Request, RoutingRows
from moe_cap.measure.engines.capture import Capture, expert_modules
from moe_cap.measure.engines.generation import fixed_length
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.in_process import InProcessEngine, torch_threads
from moe_cap.measure.engines.transformers_session import TransformersSession, before_stop
from moe_cap.measure.memory import memory_errors
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource, StepKind

NOTING = "moe_cap_noting_fifo"
BATCH_TOKENS = 2048
"""Tokens of one pass at most; longer prompts are prefilled in chunks."""
FREE_SHARE = 0.5
"""Of the cache's blocks: the scheduler holds prompts back when less than 15 % are free."""
NO_END = -1
"""The library's word for an answer that no token ends."""
LOOK_S = 1.0
SILENCE_S = 600.0
"""Without a pass or an answer: a first pass may compile, a thread that hangs never ends."""
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One call of the scheduler that scheduled something: when, who, and who will have a token afterwards."""

    at_s: float
    members: tuple[Member, ...]
    finishing: frozenset[str]


class NotingScheduler(FIFOScheduler):  # type: ignore[misc]  # transformers is untyped
    """First in, first out, as the library has it; notes what it decided."""

    def reset(self) -> None:
        """A new run."""
        super().reset()
        self.noted: list[Scheduled] = []

    def schedule_batch(self, token_budget: int, cache_budget: int) -> Any:
        """The parent's decision, with a note of it."""
        decided = super().schedule_batch(token_budget, cache_budget)
        if decided[0]:
            members = tuple(
                Member(each.state.request_id, each.state.position_offset, each.query_length) for each in decided[0]
            )
            finishing = frozenset(each.state.request_id for each in decided[0] if each.has_new_token)
            self.noted.append(Scheduled(time.perf_counter(), members, finishing))
        return decided


SCHEDULER_MAPPING[NOTING] = NotingScheduler


def steps_of(
    noted: Sequence[Scheduled], requests: Sequence[Request], completions: Sequence[Completion], lag: int
) -> tuple[EngineStep, ...]:
    """The passes with their times.

    A pass ends when its tokens came. One that gave no token (a chunk of a longer prompt) ends when the scheduler was
    called `lag` passes later: 1, or 2 where the next pass is scheduled while this one runs.

    Raises:
        InvalidRunError: the notes and the tokens do not belong together.
    """
    arrivals = {done.request_id: iter(done.token_s) for done in completions}
    prompts = {request.id: len(request.prompt) for request in requests}
    steps: list[EngineStep] = []
    ended_s, before = 0.0, frozenset[str]()
    for index, each in enumerate(noted):
        came = [_next(arrivals, request_id) for request_id in each.finishing]
        later = noted[index + lag].at_s if index + lag < len(noted) else None
        present = frozenset(member.request_id for member in each.members)
        # Where nobody stayed from the pass before, the engine may have waited for work in between.
        begun_s = ended_s if present & before else each.at_s
        end_s = max(came, default=later)
        if end_s is None:
            raise InvalidRunError("the last pass of a run gave no token")
        steps.append(EngineStep(_kind(each.members, prompts), end_s - begun_s, each.members, len(each.finishing)))
        ended_s, before = end_s, present
    if any(next(rest, None) is not None for rest in arrivals.values()):
        raise InvalidRunError("more tokens came than passes were scheduled for them")
    return tuple(steps)


def _next(arrivals: dict[str, Iterator[float]], request_id: str) -> float:
    came = next(arrivals[request_id], None)
    if came is None:
        raise InvalidRunError(f"request {request_id} was scheduled more often than tokens came for it")
    return came


def _kind(members: Sequence[Member], prompts: dict[str, int]) -> StepKind:
    decoding = {member.first_position >= prompts[member.request_id] for member in members}
    if len(decoding) == 2:
        return StepKind.MIXED
    return StepKind.DECODE if decoding == {True} else StepKind.PREFILL


class ContinuousSession(TransformersSession):
    """The model behind the library's manager; scores and storage are the parent's."""

    generation = "continuous batching, greedy, closed loop"

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: HubTokenizer, spec: LaunchSpec) -> None:
        super().__init__(name, model, tokenizer, spec)
        self._resolved: dict[str, JsonValue] = {}

    def describe(self) -> EngineRecord:
        """With the settings that the manager resolved for the last run."""
        told = super().describe()
        return told.model_copy(
            update={"arguments": {**told.arguments, "cache_implementation": "paged", **self._resolved}}
        )

    def warm_up(self, requests: Sequence[Request], concurrency: int) -> None:
        """One round of the load's shape."""
        self.run(requests[:concurrency], concurrency)

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """A closed loop: the next request is sent when one is answered."""
        config = fixed_length(max(request.output_tokens for request in requests), None, compiled=False)
        config.eos_token_id = NO_END
        with self._opened(requests, concurrency, config) as manager:
            started_s = time.perf_counter()
            completions = _carry(manager, requests, concurrency)
            ended_s = time.perf_counter()
            lag = 2 if manager.continuous_batching_config.use_async_batching else 1
            steps = steps_of(manager.batch_processor.scheduler.noted, requests, completions, lag)
        return EngineRun(completions, steps, started_s, ended_s)

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy answers by the model's own generation settings, all at once; cut at a stop text afterwards."""
        asked = [Request(str(index), tuple(prompt), max_tokens) for index, prompt in enumerate(prompts)]
        with self._opened(asked, len(asked), self._answering(max_tokens)) as manager:
            answered = _carry(manager, asked, len(asked))
        return [before_stop(self._tokenizer.decode(done.tokens), stop) for done in answered]

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through the same weights once more, one pass per request, the experts written down."""
        if not expert_modules(self._model):
            return ()
        return tuple(map(self._replay, requests, completions))

    def _replay(self, request: Request, completion: Completion) -> RoutingRows:
        inputs = torch.tensor([[*request.prompt, *completion.tokens[:-1]]], device=self._model.device)
        with torch.inference_mode(), memory_errors("the routing pass"), Capture(self._model) as capture:
            logits = self._model(inputs, use_cache=False, logits_to_keep=len(completion.tokens)).logits
        (rows,) = capture.passes
        return RoutingRows(request.id, rows.numpy(), tuple(logits[0].argmax(dim=-1).tolist()))

    @contextlib.contextmanager
    def _opened(self, requests: Sequence[Request], concurrency: int, generation: GenerationConfig) -> Iterator[Any]:
        """A manager with a cache for this load, warmed up and not started."""
        longest = max(len(request.prompt) + request.output_tokens for request in requests)
        config = ContinuousBatchingConfig(allow_block_sharing=False, scheduler_type=NOTING)
        config.num_blocks = math.ceil(concurrency * math.ceil(longest / config.page_size) / (1 - FREE_SHARE))
        config.max_batch_tokens = BATCH_TOKENS
        config.max_requests_per_batch = concurrency
        with memory_errors(f"continuous batches of {concurrency}"):
            manager = self._model.init_continuous_batching(generation, config)
            manager.warmup()
            self._resolved = _plain(manager.continuous_batching_config.__dict__)
            try:
                yield manager
            finally:
                manager.stop(block=True, timeout=STOP_S, hard_stop=True)
                manager.destroy()


def _carry(manager: Any, requests: Sequence[Request], concurrency: int) -> tuple[Completion, ...]:
    """Requests in a closed loop; the first ones are queued before the loop starts, so that they start together.

    Raises:
        EngineCrashedError: the manager's thread ended, or it failed a request.
        OutOfMemoryError: for lack of memory.
        RunTimeoutError: the thread lives and computes nothing.
    """
    waiting, sent_s, done = iter(requests), dict[str, float](), dict[str, Completion]()
    for request in itertools.islice(waiting, concurrency):
        sent_s[request.id] = _send(manager, request)
    passes, alive_s = 0, time.monotonic()
    manager.start()
    while len(done) < len(requests):
        answer = manager.get_result(timeout=LOOK_S)
        _refuse_fatal(manager.background_thread_status.fatal_error)
        before, passes = passes, _passes(manager)
        if answer is not None or passes != before:
            alive_s = time.monotonic()
        elif time.monotonic() - alive_s > SILENCE_S:
            raise RunTimeoutError(f"continuous batching computed nothing for {SILENCE_S:g} s: its thread hangs")
        if answer is None:
            if not manager.is_running():
                raise EngineCrashedError("the thread of continuous batching ended before its requests did")
            continue
        if answer.error is not None:
            raise EngineCrashedError(f"continuous batching failed request {answer.request_id}: {answer.error}")
        tokens, token_s = tuple(answer.generated_tokens), tuple(answer.timestamps)
        done[answer.request_id] = Completion(answer.request_id, tokens, sent_s[answer.request_id], token_s, token_s[-1])
        for request in itertools.islice(waiting, 1):
            sent_s[request.id] = _send(manager, request)
    return tuple(done[request.id] for request in requests)


def _refuse_fatal(error: Exception | None) -> None:
    """Name what ended the manager's thread."""
    if error is None:
        return
    try:
        with memory_errors("continuous batching"):
            raise error
    except OutOfMemoryError:
        raise
    except Exception as cause:
        raise EngineCrashedError(f"continuous batching ended: {cause!r}") from cause


def _passes(manager: Any) -> int:
    """So far; 0 before the thread has made what schedules them."""
    return 0 if manager.batch_processor is None else len(manager.batch_processor.scheduler.noted)


def _send(manager: Any, request: Request) -> float:
    sent_s = time.perf_counter()
    manager.add_request(
        list(request.prompt), request_id=request.id, max_new_tokens=request.output_tokens, record_timestamps=True
    )
    return sent_s


def _plain(settings: Mapping[str, Any]) -> dict[str, JsonValue]:
    """What of the resolved settings can be written down."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in settings.items()
        if isinstance(value, bool | int | float | str | tuple)
    }


def options() -> dict[str, JsonValue]:
    """The cache is the manager's; whether the pass is compiled or captured is the library's choice."""
    return {
        "device": "cuda:0" if torch.cuda.is_available() else "cpu",
        "threads": torch_threads(),
        "cache_implementation": None,
        "compile": False,
    }


ENGINE = InProcessEngine("transformers-continuous", options, session=ContinuousSession, routing=RoutingSource.REPLAY)
