"""A model that transformers holds in this process, and how it is asked: what every transformers engine shares.

Batches run in lock step through `model.generate`. The engines beside this one (`transformers_*.py`) inherit the session
and change how tokens are generated, never how they are scored, stored or described.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, ExpertsInterface

from moe_cap.architecture import Architecture
from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines import quantise
from moe_cap.measure.engines.base import (
    Completion,
    Continuation,
    EngineRun,
    LaunchSpec,
    Request,
    RoutingRows,
    Score,
    Tokenizer,
)
from moe_cap.measure.engines.capture import Capture, expert_modules
from moe_cap.measure.engines.generation import ForcedTokens, StopTexts, fixed_length, generate_batch, prompts_of
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.lock_step import lock_step
from moe_cap.measure.memory import memory_errors
from moe_cap.precision import StoragePlan
from moe_cap.result import EngineRecord

PINNED = "moe_cap_pinned_grouped_mm"
DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SEQUENCE_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx")
"""Where configurations keep the longest sequence, in the order that lm-eval looks them up."""


class TransformersSession:
    """A loaded model; see `moe_cap.measure.engines.base.Session`.

    Attributes:
        generation: how tokens come about, for the record.
    """

    generation = "generate, greedy, lock step"

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: HubTokenizer, spec: LaunchSpec) -> None:
        self._name = name
        self._model: Any = model
        self._tokenizer = tokenizer
        self._spec = spec
        cache = spec.options["cache_implementation"]
        self._cache = None if cache is None else str(cache)
        self._compiled = bool(spec.options["compile"])
        self._answers_config: GenerationConfig = model.generation_config
        # The model's own generation settings (sampling, penalties, end tokens) belong to answers, not to timed load.
        model.generation_config = GenerationConfig(pad_token_id=tokenizer.pad_token)
        if model.device.type != "cpu":
            _pin_experts(model)

    @property
    def model(self) -> Any:
        """The loaded model itself, for whoever drives it in another way."""
        return self._model

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        """From the configuration; 2048 where it says nothing, as lm-eval assumes."""
        config = self._model.config.get_text_config()
        return next((int(getattr(config, name)) for name in SEQUENCE_LIMITS if hasattr(config, name)), 2048)

    def describe(self) -> EngineRecord:
        """Effective settings, read back from the loaded model."""
        config = self._model.config
        precision = quantise.precision_named(self._spec.precision)
        dtype = DTYPE_NAMES.get(self._model.dtype, str(self._model.dtype))
        return EngineRecord(
            name=self._name,
            version=version("transformers"),
            arguments={
                "torch": torch.__version__,
                "device": str(self._model.device),
                "threads": torch.get_num_threads(),
                "generation": self.generation,
                "cache_implementation": self._cache or "dynamic",
                "compile": self._compiled,
                "experts_implementation": config.get_text_config()._experts_implementation,
                "attention_implementation": config._attn_implementation,
            },
            weights_dtype=self._spec.precision,
            kv_dtype=dtype,
            compute_dtype=dtype,
            quantisation=f"torchao {version('torchao')}, weight-only, {self._spec.precision}"
            if precision.store
            else None,
        )

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As `quantise` lays the tensors out."""
        return quantise.precision_named(self._spec.precision).storage

    def weights_bytes(self) -> float:
        """Packed values, scales and zero points included."""
        return float(quantise.weight_bytes(self._model))

    def warm_up(self, requests: Sequence[Request], concurrency: int) -> None:
        """One batch of the load's own shape; compiled code of the last shape is dropped first."""
        if self._compiled:
            torch.compiler.reset()
        self._batch(requests[:concurrency])

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """Fixed batches, one after the other."""
        return lock_step(self._batch, requests, concurrency)

    def _batch(self, requests: Sequence[Request]) -> EngineRun:
        config = self._fixed_length(requests[0].output_tokens, compiled=self._compiled)
        with torch.inference_mode(), memory_errors(f"a batch of {len(requests)}"):
            return generate_batch(self._model, requests, config)

    def _fixed_length(self, output_tokens: int, *, compiled: bool) -> GenerationConfig:
        """Without the tokens that the server whose answers are replayed was told never to say."""
        config = fixed_length(output_tokens, self._cache, compiled=compiled)
        config.suppress_tokens = self._spec.options.get("forbidden_tokens") or None
        return config

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same generation once more, with the recorded tokens forced and the experts written down."""
        if not expert_modules(self._model):
            return ()
        forced = ForcedTokens(torch.tensor([completion.tokens for completion in completions]))
        config = self._fixed_length(requests[0].output_tokens, compiled=False)
        prompts = prompts_of(requests, self._model.device)
        with torch.inference_mode(), memory_errors("the routing pass"), Capture(self._model) as capture:
            self._model.generate(
                prompts, attention_mask=torch.ones_like(prompts), generation_config=config, logits_processor=[forced]
            )
        predicted = torch.stack(forced.predicted, dim=1).tolist()
        rows = _rows_by_sequence(capture.passes, len(requests))
        return tuple(
            RoutingRows(request.id, experts, tuple(tokens))
            for request, experts, tokens in zip(requests, rows, predicted, strict=True)
        )

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """Log-probabilities from one padded forward pass, in the dtype of the logits, as lm-eval's own engine does."""
        rows = [[*item.context, *item.continuation][-(self.max_tokens + 1) :] for item in continuations]
        width = max(map(len, rows)) - 1
        inputs = torch.tensor([row[:-1] + [0] * (width - len(row) + 1) for row in rows], device=self._model.device)
        with torch.inference_mode(), memory_errors(f"scoring a batch of {len(rows)}"):
            logits = functional.log_softmax(self._model(inputs, use_cache=False).logits, dim=-1)
        return [
            _score(logits[index, : len(row) - 1], item.continuation)
            for index, (row, item) in enumerate(zip(rows, continuations, strict=True))
        ]

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy answers by the model's own generation settings; shorter prompts are padded on the left."""
        width = max(map(len, prompts))
        pad = self._tokenizer.pad_token
        inputs = torch.tensor(
            [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=self._model.device
        )
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=self._model.device
        )
        config = self._answering(max_tokens)
        criteria = [StopTexts(self._tokenizer.inner, stop, width)] if stop else []
        with torch.inference_mode(), memory_errors(f"answering a batch of {len(prompts)}"):
            output = self._model.generate(
                inputs, attention_mask=mask, generation_config=config, stopping_criteria=criteria
            )
        return [before_stop(self._tokenizer.decode(tokens), stop) for tokens in output[:, width:].tolist()]

    def _answering(self, max_tokens: int) -> GenerationConfig:
        """The model's own settings, greedy."""
        config = GenerationConfig.from_dict(self._answers_config.to_dict())
        config.update(
            max_new_tokens=max_tokens, max_length=None, do_sample=False, temperature=None, top_p=None, top_k=None,
            pad_token_id=self._tokenizer.pad_token, disable_compile=True,
        )  # fmt: skip
        return config

    def stop(self) -> None:
        """Drop the model."""
        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _pin_experts(model: Any) -> None:
    """Keep `grouped_mm` for decode too; registered under another name, `generate` leaves it alone."""
    if model.config.get_text_config()._experts_implementation != "grouped_mm":
        return
    ExpertsInterface.register(PINNED, ALL_EXPERTS_FUNCTIONS["grouped_mm"])
    model.set_experts_implementation(PINNED)


def _rows_by_sequence(passes: Sequence[torch.Tensor], sequences: int) -> Iterator[NDArray[np.int16]]:
    """Passes of [sequences * tokens, layers, top_k] become one [positions, layers, top_k] array per sequence."""
    if not passes:
        raise InvalidRunError("the routing pass recorded nothing")
    by_sequence = [rows.numpy().reshape(sequences, -1, *rows.shape[1:]) for rows in passes]
    yield from np.concatenate(by_sequence, axis=1)


def _score(logits: torch.Tensor, continuation: Sequence[int]) -> Score:
    """Of the last rows of [positions, vocabulary] log-probabilities, those that predict the continuation."""
    tail = logits[-len(continuation) :]
    wanted = torch.tensor(continuation, device=logits.device)
    return Score(
        log_probability=float(tail.gather(1, wanted.unsqueeze(1)).sum()),
        is_greedy=bool((tail.argmax(dim=-1) == wanted).all()),
    )


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop text."""
    for end in stop:
        text = text.split(end)[0] if end else text
    return text
