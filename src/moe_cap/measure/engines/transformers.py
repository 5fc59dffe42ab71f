"""Hugging Face transformers, in process, by `model.generate`.

Batches run in lock step. On CUDA the cache is static and the decode step is compiled (CUDA graphs): without them a
step is bound by kernel launches. The experts' implementation is pinned there, because `generate` would otherwise
switch to one that copies the weights of every token's experts, which reads more than the union that the metrics
count.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, ExpertsInterface

from moe_cap.architecture import Architecture
from moe_cap.errors import EngineStartError, InvalidRunError, MoECapError, SubmissionError
from moe_cap.measure.engines import quantise
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
from moe_cap.measure.engines.capture import Capture, expert_modules
from moe_cap.measure.engines.generation import ForcedTokens, StopTexts, fixed_length, generate_batch, prompts_of
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.lock_step import lock_step
from moe_cap.measure.memory import memory_errors, refuse_what_does_not_fit
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.precision import StoragePlan
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource

PINNED = "moe_cap_pinned_grouped_mm"
DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
SEQUENCE_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx")
"""Where configurations keep the longest sequence, in the order that lm-eval looks them up."""


def torch_threads() -> int:
    """All processors that this process may use but one, and no more than OMP_NUM_THREADS.

    torch's threads wait by spinning: with one thread more than free processors a step takes ten times as long, and the
    worker's heartbeat has to run somewhere.
    """
    return max(1, min(int(torch.get_num_threads()), len(os.sched_getaffinity(0)) - 1))


class TransformersEngine:
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "transformers"

    def probe(self) -> Capabilities:
        """Whether the packages are there."""
        missing = [name for name in ("torch", "transformers", "torchao") if importlib.util.find_spec(name) is None]
        return Capabilities(
            installed=not missing,
            reason=f"not installed: {', '.join(missing)}" if missing else None,
            version=None if "transformers" in missing else version("transformers"),
            routing=RoutingSource.LOCK_STEP,
            step_times=True,
        )

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """Static cache and compilation on CUDA, dynamic cache elsewhere."""
        if precision not in ENGINES[self.name].precisions:
            known = ", ".join(ENGINES[self.name].precisions)
            raise SubmissionError(f"transformers has no precision {precision!r}; there are: {known}", field="precision")
        cuda = torch.cuda.is_available()
        options: dict[str, JsonValue] = {
            "device": "cuda:0" if cuda else "cpu",
            "threads": torch_threads(),
            "cache_implementation": "static" if cuda else None,
            "compile": cuda,
        }
        return LaunchSpec(files=files, precision=precision, options=options)

    def start(self, spec: LaunchSpec, log: Path) -> TransformersSession:
        """Load the model into this process."""
        refuse_what_does_not_fit(spec.files, spec.precision, str(spec.options["device"]))
        torch.set_num_threads(int(str(spec.options["threads"])))
        with _library_log(log), memory_errors(f"loading {spec.files.name}"):
            try:
                model = quantise.load_model(spec.files.folder, spec.precision)
                tokenizer = HubTokenizer(spec.files)
                model.to(spec.options["device"])
            except (MoECapError, MemoryError, torch.OutOfMemoryError):
                raise
            except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
                if "allocate" in str(error):
                    raise
                raise EngineStartError(f"transformers could not load {spec.files.name}: {error}") from error
        return TransformersSession(model, tokenizer, spec)


@contextlib.contextmanager
def _library_log(path: Path) -> Iterator[None]:
    """What transformers has to say while it loads goes to the log file."""
    logger = logging.getLogger("transformers")
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


class TransformersSession:
    """A loaded model; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, model: PreTrainedModel, tokenizer: HubTokenizer, spec: LaunchSpec) -> None:
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
            name="transformers",
            version=version("transformers"),
            arguments={
                "torch": torch.__version__,
                "device": str(self._model.device),
                "threads": torch.get_num_threads(),
                "generation": "generate, greedy, lock step",
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
        config = fixed_length(requests[0].output_tokens, self._cache, compiled=self._compiled)
        with torch.inference_mode(), memory_errors(f"a batch of {len(requests)}"):
            return generate_batch(self._model, requests, config)

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same generation once more, with the recorded tokens forced and the experts written down."""
        if not expert_modules(self._model):
            return ()
        forced = ForcedTokens(torch.tensor([completion.tokens for completion in completions]))
        config = fixed_length(requests[0].output_tokens, self._cache, compiled=False)
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
        config = GenerationConfig.from_dict(self._answers_config.to_dict())
        config.update(
            max_new_tokens=max_tokens, max_length=None, do_sample=False, temperature=None, top_p=None, top_k=None,
            pad_token_id=pad, disable_compile=True,
        )  # fmt: skip
        criteria = [StopTexts(self._tokenizer.inner, stop, width)] if stop else []
        with torch.inference_mode(), memory_errors(f"answering a batch of {len(prompts)}"):
            output = self._model.generate(
                inputs, attention_mask=mask, generation_config=config, stopping_criteria=criteria
            )
        return [_before(self._tokenizer.decode(tokens), stop) for tokens in output[:, width:].tolist()]

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


def _before(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop text."""
    for end in stop:
        text = text.split(end)[0] if end else text
    return text


ENGINE = TransformersEngine()
