"""A routing trace as it is kept beside a result: which experts every token of a load went to.

From it follow, offline, the distinct experts of any batch size (the paper's Figure 5) and the tokens of every expert of
every layer (the heat map).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moe_cap.errors import TraceError
from moe_cap.result import Load
from moe_cap.routing import Ids, activated_experts, activated_experts_at_batch, uniform_activated_experts

STEPS = 64
"""Evenly spaced decode positions from which the curve over batch sizes is taken."""
DRAWS = 32
"""Batches that are drawn where more sequences are asked for than were traced."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpertTrace:
    """The routing of a load.

    Attributes:
        experts: [positions, MoE layers, top_k], all sequences one after the other.
        positions: how many of them each sequence has; its last output token has none.
        prompt_tokens: how many of each sequence's positions are its prompt.
        num_experts: that a router picks from.
    """

    experts: Ids
    positions: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    num_experts: int

    def uniform(self, batch_size: int) -> float:
        """Distinct experts of a step that routing with equal chances would be expected to use."""
        return uniform_activated_experts(self.num_experts, self.experts.shape[-1], batch_size)

    def decoded(self) -> Ids:
        """Ids of the decoded positions, [sequences, steps, layers, top_k], as far as the shortest answer goes.

        Raises:
            TraceError: a sequence has no decoded position.
        """
        sequences = np.split(self.experts, np.cumsum(self.positions)[:-1])
        decoded = [ids[prompt:] for ids, prompt in zip(sequences, self.prompt_tokens, strict=True)]
        shortest = min(map(len, decoded), default=0)
        if shortest == 0:
            raise TraceError("a traced answer has no token after its first: there is no decode step to look at")
        return np.stack([ids[:shortest] for ids in decoded])


@dataclass(frozen=True, slots=True)
class Activated:
    """Distinct experts of a decode step of `batch_size` sequences.

    Attributes:
        by_layer: mean over steps, one value per MoE layer.
        drawn: put together from tokens of different steps, because fewer sequences were traced.
    """

    batch_size: int
    by_layer: tuple[float, ...]
    drawn: bool

    @property
    def mean(self) -> float:
        """Over the layers."""
        return float(np.mean(self.by_layer))


def recorded_batches(trace: ExpertTrace) -> tuple[int, ...]:
    """1, 2, 4 ... up to the number of traced sequences."""
    return tuple(2**power for power in range(len(trace.positions).bit_length()))


def activated_at(trace: ExpertTrace, batch_size: int, seed: int = 0) -> Activated:
    """Distinct experts if `batch_size` sequences of this kind had been decoded together.

    Up to the number of traced sequences they are taken together as they were. A larger batch is drawn from all decoded
    tokens without replacement: as if a sequence's steps were independent of each other.

    Raises:
        TraceError: fewer tokens were decoded than the batch has.
    """
    ids = trace.decoded()
    if 1 <= batch_size <= len(ids):
        chosen = np.linspace(0, ids.shape[1] - 1, min(ids.shape[1], STEPS)).astype(int)
        return Activated(batch_size, activated_experts_at_batch(ids[:, chosen], batch_size), drawn=False)
    tokens = ids.reshape(-1, *ids.shape[2:])
    if not 1 <= batch_size <= len(tokens):
        raise TraceError(f"no batch of {batch_size}: {len(tokens)} tokens of {len(ids)} sequences were decoded")
    rng = np.random.default_rng(seed)
    rows = [activated_experts(tokens[rng.permutation(len(tokens))[:batch_size]]) for _ in range(DRAWS)]
    return Activated(batch_size, tuple(map(float, np.mean(rows, axis=0))), drawn=True)


def load_name(load: Load) -> str:
    """What the files of a load are called by, beside its result; other loads have other names, to the last digit."""
    if load.concurrency is not None:
        return f"{load.concurrency}-in-flight"
    return "replay" if load.request_rate_per_s is None else f"{load.request_rate_per_s!r}-per-s"


def trace_name(load: Load) -> str:
    """The file in which a load's trace lies beside its result."""
    return f"trace-{load_name(load)}.npz"


def join_sequences(sequences: Sequence[Ids], prompt_tokens: Sequence[int], num_experts: int) -> ExpertTrace:
    """A trace of sequences [positions, layers, top_k] each."""
    lengths = tuple(map(len, sequences))
    return ExpertTrace(np.concatenate(sequences), lengths, tuple(prompt_tokens), num_experts)


def write_trace(trace: ExpertTrace, path: Path) -> None:
    """Write a compressed npz archive; a file of that name stays until the new one is whole."""
    narrow = trace.experts.astype(np.uint8 if trace.num_experts <= 2**8 else np.uint16)
    body = io.BytesIO()
    np.savez_compressed(
        body,
        experts=narrow,
        positions=np.asarray(trace.positions),
        prompt_tokens=np.asarray(trace.prompt_tokens),
        num_experts=np.asarray(trace.num_experts),
    )
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(body.getvalue())
    part.replace(path)


def read_trace(path: Path) -> ExpertTrace:
    """Read what `write_trace` wrote.

    Raises:
        TraceError: no such file, or no trace.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as told:
            trace = ExpertTrace(
                told["experts"].astype(np.int16),
                tuple(map(int, told["positions"])),
                tuple(map(int, told["prompt_tokens"])),
                int(told["num_experts"]),
            )
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        zlib.error,
        zipfile.BadZipFile,
    ) as error:
        raise TraceError(f"{path} is no routing trace: {error}") from error
    if trace.experts.ndim != 3 or sum(trace.positions) != len(trace.experts):
        raise TraceError(f"{path} is no routing trace: {trace.experts.shape} ids of {sum(trace.positions)} positions")
    if len(trace.prompt_tokens) != len(trace.positions) or not trace.positions:
        raise TraceError(
            f"{path} is no routing trace: {len(trace.prompt_tokens)} prompts of {len(trace.positions)} sequences"
        )
    if trace.experts.size and not 0 <= trace.experts.min() <= trace.experts.max() < trace.num_experts:
        raise TraceError(f"{path} is no routing trace: an expert id outside 0 to {trace.num_experts - 1}")
    return trace
