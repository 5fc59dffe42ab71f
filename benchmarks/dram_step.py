"""Runs inside vLLM's environment, under `ncu`: single forward passes, each marked, with what was in them written down.

Only the standard library, torch, numpy and vLLM are here. `dram_bytes.py` starts it with a file that says

    {"engine_args": [...], "vocab_size": 50304, "cells": [{"kind": "decode", "batch": 8, "tokens": 512}], "output": DIR}

and reads `<output>/<kind>-<batch>.json` (which tokens the pass computed, and in which contexts) and, where vLLM returns
them, `<kind>-<batch>.npy`: the experts of these very tokens, [tokens, layers, top_k].
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm import EngineArgs, LLMEngine, SamplingParams

try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:  # before 0.12
    from vllm.utils import FlexibleArgumentParser

SETTLED = 4
"""Tokens that every sequence has before its decode step is looked at."""
ANSWER = 48
"""Tokens of an answer: the sequences of a large batch do not begin in the same pass."""


class UnexpectedPassError(Exception):
    """vLLM formed another pass than was asked for."""


@contextmanager
def counted() -> Iterator[None]:
    """What `ncu --profile-from-start off` counts; a kernel of no model, `spin_kernel`, marks where it begins."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    torch.cuda._sleep(1)
    try:
        yield
        torch.cuda.synchronize()
    finally:
        torch.cuda.profiler.stop()


@contextmanager
def not_counted() -> Iterator[None]:
    """A pass that warms up: kernels are compiled and tuned in it."""
    yield


class Sequences:
    """One batch of sequences in vLLM, stepped by hand."""

    def __init__(self, engine: LLMEngine, name: str, prompts: list[list[int]], answer: int) -> None:
        self.engine = engine
        self.made = {f"{name}-{index}": 0 for index in range(len(prompts))}
        self.routed: dict[str, np.ndarray] = {}
        asked = SamplingParams(temperature=0.0, max_tokens=answer, ignore_eos=True, detokenize=False)
        for request, prompt in zip(self.made, prompts, strict=True):
            engine.add_request(request, {"prompt_token_ids": prompt}, asked)

    def step(self) -> None:
        """One forward pass."""
        for answer in self.engine.step():
            told = answer.outputs[0]
            self.made[answer.request_id] = len(told.token_ids)
            if (experts := getattr(told, "routed_experts", None)) is not None:
                self.routed[answer.request_id] = np.asarray(experts)

    def finish(self) -> None:
        """To the end: vLLM hands the experts of a sequence over with its last token."""
        while self.engine.has_unfinished_requests():
            self.step()


def run_cell(engine: LLMEngine, cell: dict[str, Any], name: str, prompts: list[list[int]], counting: Any) -> Sequences:
    """One pass of the kind that was asked for, of all sequences together.

    Raises:
        UnexpectedPassError: not every sequence got exactly its next token in it.
    """
    decode = cell["kind"] == "decode"
    running = Sequences(engine, name, prompts, ANSWER if decode else 2)
    while decode and min(running.made.values()) < SETTLED:
        running.step()
    before = dict(running.made)
    with counting():
        running.step()
    if wrong := {request: made for request, made in running.made.items() if made != before[request] + 1}:
        raise UnexpectedPassError(f"{name}: the pass did not give one token to each of {len(before)}: {wrong}")
    running.finish()
    running.made = before
    return running


def members_of(cell: dict[str, Any], running: Sequences) -> list[dict[str, Any]]:
    """What the pass computed for each sequence: the last token that was made, or the whole prompt."""
    length = cell["tokens"]
    return [
        {"request": request, "first_position": length + made - 1 if made else 0, "new_tokens": 1 if made else length}
        for request, made in running.made.items()
    ]


def write_cell(folder: Path, cell: dict[str, Any], running: Sequences) -> None:
    """The members of the pass, and their experts where vLLM returned them."""
    name, members = f"{cell['kind']}-{cell['batch']}", members_of(cell, running)
    if running.routed:
        rows = [
            running.routed[member["request"]][member["first_position"] :][: member["new_tokens"]] for member in members
        ]
        np.save(folder / f"{name}.npy", np.concatenate(rows))
    (folder / f"{name}.json").write_text(json.dumps(members), encoding="utf-8")


def main(asked_file: str) -> None:
    asked = json.loads(Path(asked_file).read_text(encoding="utf-8"))
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    engine = LLMEngine.from_engine_args(EngineArgs.from_cli_args(parser.parse_args(asked["engine_args"])))
    folder, drawn = Path(asked["output"]), random.Random(0)
    for cell in asked["cells"]:
        for phase, counting in (("warm", not_counted), ("counted", counted)):
            prompts = [drawn.choices(range(asked["vocab_size"]), k=cell["tokens"]) for _ in range(cell["batch"])]
            name = f"{phase}-{cell['kind']}-{cell['batch']}"
            running = run_cell(engine, cell, name, prompts, counting)
        write_cell(folder, cell, running)
        print(f"counted {cell['kind']} of {cell['batch']}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
