"""`make gpu-results`: the systems of real size on the GPU of this machine, without a network.

For every shape in `random_models/` (the values of the public config.json): draw the weights, run `moe-cap profile` with
the engine at every batch size, publish the results, delete the weights. The records are complete and marked as random
weights, so the board shows them as speed only. Where something is missing it says what, and starts nothing.

    python benchmarks/gpu_results.py --plan          # what would run, and what is missing; needs no GPU
    python benchmarks/gpu_results.py --only OLMoE-1B-7B --batches 1,8,64
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
SHAPES = Path(__file__).resolve().parent / "random_models"
TOKENIZER = CHECKOUT / "assets" / "cap-tiny-moe"
BATCHES = "1,2,4,8,16,32,64"
INPUT_TOKENS, OUTPUT_TOKENS, REPEATS = 512, 128, 3
ROOM = 1.15
"""Of the GPU's memory and of the disk, over the weights: cache, activations, the engine's own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One model of the plan, as its config.json says that it is stored."""

    name: str
    config: dict[str, Any]
    parameters: int
    precision: str
    weights_bytes: float


def read_shapes(folder: Path, only: Sequence[str]) -> list[Shape]:
    """The shapes in a folder, smallest first."""
    from moe_cap.architecture import parse_config
    from moe_cap.precision import parse_quantization, stored_bytes

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


def missing(shapes: Sequence[Shape], engine: str, scratch: Path, *, rehearsal: bool) -> list[str]:
    """Everything that stands in the way, for people."""
    from moe_cap.hardware import detect_machine
    from moe_cap.measure.engines.registry import load_engine

    found = []
    device = detect_machine().devices[0]
    if not rehearsal:
        if device.pci_id is None:
            found.append(f"no GPU: this machine has {device.name}, and no driver's library tells of another device")
        else:
            found += [
                f"{shape.name} needs {shape.weights_bytes * ROOM / 1e9:.0f} GB, {device.name} has less"
                for shape in shapes
                if (device.memory_bytes or 0) < shape.weights_bytes * ROOM
            ]
    probe = load_engine(engine).probe()
    if not probe.installed:
        found.append(f"engine {engine}: {probe.reason}")
    free = shutil.disk_usage(scratch).free
    found += [
        f"{shape.name} needs {shape.weights_bytes * ROOM / 1e9:.0f} GB in {scratch}, {free / 1e9:.0f} GB are free"
        for shape in shapes
        if free < shape.weights_bytes * ROOM
    ]
    return found


def command(shape: Shape, folder: Path, asked: argparse.Namespace) -> list[str]:
    """The arguments of `moe-cap` that measure one shape."""
    lengths = ("--input-tokens", str(asked.input_tokens), "--output-tokens", str(asked.output_tokens))
    return [
        "profile", "--engine", asked.engine, "--model", str(folder), "--precision", shape.precision,
        "--concurrency", asked.batches, *lengths, "--repeats", str(asked.repeats),
        "--output-dir", str(asked.output / shape.name), "--publish",
    ]  # fmt: skip


def plan(shapes: Sequence[Shape], asked: argparse.Namespace) -> Iterator[str]:
    """What would run, a line each."""
    for shape in shapes:
        stored = f"{shape.weights_bytes / 1e9:.1f} GB in {shape.precision}"
        yield f"{shape.name}: {shape.parameters / 1e9:.2f} G parameters, {stored}"
        yield "  moe-cap " + " ".join(command(shape, asked.scratch / shape.name, asked))
    yield f"results go to {os.environ.get('RESULTS_REPO') or os.environ.get('MOE_CAP_RESULTS') or 'eval-results'}"


def measure(shape: Shape, asked: argparse.Namespace) -> int:
    """Draw the weights, run the command, delete them; the command's exit code."""
    import torch

    from moe_cap.cli import main as moe_cap
    from moe_cap.measure.random_weights import write_random_model

    folder = asked.scratch / shape.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        print(f"{shape.name}: drawing {shape.weights_bytes / 1e9:.1f} GB of weights", file=sys.stderr, flush=True)
        write_random_model(shape.config, TOKENIZER, folder, device=device)
        if device == "cuda":
            torch.cuda.empty_cache()  # the engine is another process, and wants it all
        return moe_cap(command(shape, folder, asked))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="say what would run and what is missing")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these shapes alone")
    parser.add_argument("--shapes", type=Path, default=SHAPES, help="folder of config.json files")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--input-tokens", type=int, default=INPUT_TOKENS)
    parser.add_argument("--output-tokens", type=int, default=OUTPUT_TOKENS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="disk for the weights")
    parser.add_argument("--output", type=Path, default=Path("data/gpu-results"), help="kept results, tables, plots")
    parser.add_argument("--rehearsal", action="store_true", help="run without a GPU, for shapes that a CPU can carry")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse_arguments(arguments)
    shapes = read_shapes(asked.shapes, asked.only)
    lacking = missing(shapes, asked.engine, asked.scratch, rehearsal=asked.rehearsal)
    if asked.plan:
        print(*plan(shapes, asked), sep="\n")
    for line in lacking:
        print(f"missing: {line}", file=sys.stderr)
    if asked.plan or lacking:
        return int(bool(lacking) and not asked.plan)
    failed = [shape.name for shape in shapes if measure(shape, asked) != 0]
    if failed:
        print(f"failed: {', '.join(failed)}; what is measured already is kept, run it again", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
