"""The models of real size whose public config.json values lie in `random_models/`, and their weights while needed."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidInputError
from moe_cap.hardware import detect_machine
from moe_cap.measure.model_files import RANDOM_WEIGHTS
from moe_cap.precision import parse_quantization, stored_bytes

CHECKOUT = Path(__file__).resolve().parent.parent
SHAPES = Path(__file__).resolve().parent / "random_models"
TOKENIZER = CHECKOUT / "assets" / "cap-tiny-moe"
GPU_ROOM = 1.15
"""Of the GPU's memory over the weights: cache, activations, the engine's own."""
DISK_ROOM_BYTES = 1e9
"""Of the disk over the weights: tokenizer, logs, results."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One model, as its config.json says that it is stored."""

    name: str
    config: dict[str, Any]
    parameters: int
    precision: str
    weights_bytes: float


def read_shapes(folder: Path, only: Sequence[str]) -> list[Shape]:
    """The shapes in a folder, smallest first."""
    shapes = []
    for path in folder.glob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = parse_config(config)
        storage = parse_quantization(config)
        stored = stored_bytes(architecture, storage)
        shapes.append(Shape(path.stem, config, architecture.parameters().total, storage.name, stored))
    known = {shape.name for shape in shapes}
    if strange := [name for name in only if name not in known]:
        raise SystemExit(f"no shape {strange[0]}; there are: {', '.join(sorted(known))}")
    return sorted((s for s in shapes if not only or s.name in only), key=lambda shape: shape.weights_bytes)


def no_gpu() -> str | None:
    """Why there is no GPU to run on; None where there is one."""
    device = detect_machine().devices[0]
    if device.pci_id is not None:
        return None
    return f"no GPU: this machine has {device.name}, and no driver's library tells of another device"


def occupied(shape: Shape, scratch: Path) -> str | None:
    """Why a shape may not be drawn there, for people: what has its name and was not drawn is somebody's model."""
    folder = scratch / shape.name
    if not folder.exists():
        return None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    if RANDOM_WEIGHTS in config:
        return None
    return f"{folder} was not drawn by this command and would be removed: move it away, or give another --scratch"


def lacks_room(shape: Shape, scratch: Path, *, rehearsal: bool) -> str | None:
    """Why one shape cannot run here, for people; None where it can."""
    device, needed = detect_machine().devices[0], shape.weights_bytes * GPU_ROOM
    if not rehearsal and (device.memory_bytes or 0) < needed:
        return f"{shape.name} needs {needed / 1e9:.0f} GB, {device.name} has {(device.memory_bytes or 0) / 1e9:.0f}"
    free, written = shutil.disk_usage(scratch).free, shape.weights_bytes + DISK_ROOM_BYTES
    if free < written:
        return f"{shape.name} needs {written / 1e9:.0f} GB in {scratch}, {free / 1e9:.0f} GB are free (--scratch)"
    return occupied(shape, scratch)


def largest_scratch(places: Sequence[Path]) -> Path:
    """Where the weights go when nobody says: the one of these folders with the most room."""
    return max((place for place in places if place.is_dir()), key=lambda place: shutil.disk_usage(place).free)


def shape_arguments(given: Sequence[str], shapes: Sequence[Shape]) -> dict[str, str]:
    """`NAME=ARGUMENTS` of --shape-args, by shape."""
    found: dict[str, str] = {}
    for pair in given:
        name, equals, arguments = pair.partition("=")
        if not equals or name not in {shape.name for shape in shapes}:
            raise SystemExit(f"--shape-args {pair}: give NAME=ARGUMENTS with the name of a shape that is to run")
        found[name] = arguments
    return found


@contextmanager
def drawn(shape: Shape, scratch: Path) -> Iterator[Path]:
    """A folder with the shape's random weights, for as long as it is used.

    Raises:
        InvalidInputError: a model that was not drawn lies there.
    """
    import torch

    from moe_cap.measure.random_weights import write_random_model

    if reason := occupied(shape, scratch):
        raise InvalidInputError(reason)
    folder = scratch / shape.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()

    def say(written_bytes: float) -> None:
        amount = f"{written_bytes / 1e9:.1f} of {shape.weights_bytes / 1e9:.1f} GB of weights"
        print(f"{shape.name}: {amount} drawn, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    try:
        say(0.0)
        write_random_model(shape.config, TOKENIZER, folder, device=device, report=say)
        if device == "cuda":
            torch.cuda.empty_cache()  # the engine is another process, and wants it all
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
