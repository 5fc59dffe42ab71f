"""One batch through `model.generate`: greedy, of fixed length, with the arrival time of every token.

This is the path that users of transformers run. The streamer is called with each step's tokens after they have
reached the host, so on a GPU too its clock reading stands behind the work of the step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CompileConfig, GenerationConfig, LogitsProcessor, PreTrainedModel, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from moe_cap.measure.engines.base import Completion, EngineRun, Request
from moe_cap.measure.lock_step import check_same_shape, lock_step_steps


class Arrivals(BaseStreamer):  # type: ignore[misc]  # transformers is untyped
    """Notes when each step's tokens arrived; the first call is the prompt and is left out."""

    def __init__(self) -> None:
        self.token_s: list[float] = []
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Tokens of one step, already on the host."""
        if self._prompt_seen:
            self.token_s.append(time.perf_counter())
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


class ForcedTokens(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped
    """Teacher forcing: whatever the model would say, the recorded token comes next; what it would say is kept.

    Args:
        tokens: [sequences, output tokens].
    """

    def __init__(self, tokens: torch.Tensor) -> None:
        self.predicted: list[torch.Tensor] = []
        self._tokens = tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Logits that leave only the recorded token."""
        step = len(self.predicted)
        self.predicted.append(scores.argmax(dim=-1).cpu())
        forced = torch.full_like(scores, float("-inf"))
        return forced.scatter_(1, self._tokens[:, step : step + 1].to(scores.device), 0.0)


@dataclass(slots=True)
class StopTexts(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """A sequence is done once its answer holds one of the stop texts."""

    tokenizer: Any
    stop: Sequence[str]
    prompt_tokens: int
    done: torch.Tensor | None = field(default=None)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **named: Any) -> torch.Tensor:
        """One boolean per sequence. Only a tail is looked at, long enough for the longest stop text."""
        tail = input_ids[:, self.prompt_tokens :][:, -(max(map(len, self.stop)) + 1) :]
        texts = self.tokenizer.batch_decode(tail, skip_special_tokens=False)
        hit = torch.tensor([any(stop in text for stop in self.stop) for text in texts], device=input_ids.device)
        self.done = hit if self.done is None else self.done | hit
        return self.done


def prompts_of(requests: Sequence[Request], device: torch.device) -> torch.Tensor:
    """The prompts of a lock-step batch, [sequences, prompt tokens].

    Raises:
        InvalidRunError: they differ in length.
    """
    check_same_shape(requests)
    return torch.tensor([request.prompt for request in requests], device=device)


def fixed_length(output_tokens: int, cache: str | None, *, compiled: bool) -> GenerationConfig:
    """Greedy decoding of exactly so many tokens: no end token is set, so none can end it."""
    return GenerationConfig(
        max_new_tokens=output_tokens,
        do_sample=False,
        use_cache=True,
        cache_implementation=cache,
        disable_compile=not compiled,
        compile_config=_on_every_device() if compiled else None,
    )


def _on_every_device() -> CompileConfig:
    """`generate` compiles on accelerators alone unless this mark is set; its mode and backend stay as they are."""
    config = CompileConfig()
    config._compile_all_devices = True
    return config


def generate_batch(model: PreTrainedModel, requests: Sequence[Request], config: GenerationConfig) -> EngineRun:
    """Run one batch, timed, uninstrumented."""
    prompts = prompts_of(requests, model.device)
    arrivals = Arrivals()
    synchronise(model.device)
    started_s = time.perf_counter()
    output = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), generation_config=config, streamer=arrivals
    )
    ended_s = time.perf_counter()
    answers = output[:, prompts.shape[1] :].tolist()
    token_s = tuple(arrivals.token_s)
    return EngineRun(
        completions=tuple(
            Completion(request.id, tuple(answer), started_s, token_s, token_s[-1])
            for request, answer in zip(requests, answers, strict=True)
        ),
        steps=lock_step_steps(requests, started_s, token_s),
        started_s=started_s,
        ended_s=ended_s,
    )


def synchronise(device: torch.device) -> None:
    """Wait for everything that was queued on a device before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
