"""Routing of a server that tells none: transformers computes the same tokens from the same files, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from moe_cap.measure.engines.base import Session
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision import read_quantization

REPLAYED = frozenset({"fp32", "bf16"})
"""What transformers holds a plain checkpoint in as a server does; others have weights of their own making."""


def replay_precision(files: ModelFiles, served: str) -> str:
    """That of the server where the checkpoint is plain; else bf16, whose near ties may fall another way."""
    plain = not read_quantization(files.folder, files.config).rules
    return served if plain and served in REPLAYED else "bf16"


def start_replayer(files: ModelFiles, served: str, forbidden: Sequence[int], log: Path) -> Session:
    """A session that routes what a server answered.

    Args:
        files: the model's.
        served: precision that the server ran.
        forbidden: tokens that no timed answer could hold; the replay predicts under the same ban.
        log: what the library says is appended to it.
    """
    transformers = load_engine("transformers")
    spec = transformers.launch_spec(files, replay_precision(files, served))
    options: dict[str, JsonValue] = {**spec.options, "forbidden_tokens": [*forbidden]}
    return transformers.start(replace(spec, options=options), log)
