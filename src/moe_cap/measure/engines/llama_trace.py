"""What the recorder in llama.cpp wrote down (`inside/moe_cap_llama_recorder.c`), as passes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_cap.errors import InvalidRunError


@dataclass(frozen=True, slots=True)
class TracedPass:
    """One forward pass.

    Attributes:
        tokens: that were computed, with the `positions` they stand at and the `sequences` (slots) they belong to.
        experts: ids of the routed experts [tokens, MoE layers, top_k].
        log_probabilities: of each token after those before it; None where the sequence begins.
        greedy: most probable token after each; `greedy_unended`, of those that do not end a text.
    """

    tokens: tuple[int, ...]
    sequences: tuple[int, ...]
    positions: tuple[int, ...]
    experts: NDArray[np.int16]
    log_probabilities: tuple[float | None, ...]
    greedy: tuple[int, ...]
    greedy_unended: tuple[int, ...]


def parse_trace(lines: Iterable[str], moe_layers: Sequence[int]) -> list[TracedPass]:
    """The passes in order; a pass that llama.cpp cut into parts (ubatches) has its layers more than once before it.

    Args:
        lines: of the trace.
        moe_layers: of the model, as the configuration counts its layers.

    Raises:
        InvalidRunError: the trace is cut off, or a layer is missing or surplus.
    """
    passes: list[TracedPass] = []
    evaluated: dict[int, list[Any]] = {}
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InvalidRunError(f"llama.cpp's trace is cut off at {line[:80]!r}") from error
        if "layer" in record:
            evaluated.setdefault(record["layer"], []).extend(record["experts"])
        else:
            passes.append(_pass(record, evaluated, moe_layers))
            evaluated = {}
    return passes


def _pass(record: dict[str, Any], evaluated: dict[int, list[Any]], moe_layers: Sequence[int]) -> TracedPass:
    tokens = tuple(record["tokens"])
    told = {layer: len(rows) for layer, rows in sorted(evaluated.items())}
    if told != dict.fromkeys(moe_layers, len(tokens)):
        raise InvalidRunError(
            f"a pass of {len(tokens)} tokens through layers {list(moe_layers)} has rows by layer {told}"
        )
    layers = [np.asarray(evaluated[layer], dtype=np.int16) for layer in moe_layers]
    return TracedPass(
        tokens=tokens,
        sequences=tuple(record["sequences"]),
        positions=tuple(record["positions"]),
        experts=np.stack(layers, axis=1),
        log_probabilities=tuple(record["logprobs"]),
        greedy=tuple(record["greedy"]),
        greedy_unended=tuple(record["greedy_unended"]),
    )


def whole_sequence(passes: Sequence[TracedPass], tokens: Sequence[int]) -> TracedPass:
    """The passes of one prompt, put together.

    Raises:
        InvalidRunError: they are not exactly this prompt, from its first position on.
    """
    computed = [token for each in passes for token in each.tokens]
    positions = [position for each in passes for position in each.positions]
    slots = {slot for each in passes for slot in each.sequences}
    if computed != list(tokens) or positions != list(range(len(tokens))) or len(slots) != 1:
        raise InvalidRunError(
            f"of a prompt of {len(tokens)} tokens llama.cpp computed {len(computed)} in slots {sorted(slots)}, "
            f"positions {positions[:1]} to {positions[-1:]}"
        )
    return TracedPass(
        tokens=tuple(computed),
        sequences=tuple(slot for each in passes for slot in each.sequences),
        positions=tuple(positions),
        experts=np.concatenate([each.experts for each in passes]),
        log_probabilities=tuple(value for each in passes for value in each.log_probabilities),
        greedy=tuple(token for each in passes for token in each.greedy),
        greedy_unended=tuple(token for each in passes for token in each.greedy_unended),
    )
