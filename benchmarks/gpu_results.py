"""`make gpu-results`: the systems of real size on the GPU of this machine, without a network.

For every shape in `random_models/` (the values of the public config.json): draw the weights, run `moe-cap profile` with
the engine at every batch size, publish the results, delete the weights. The records are complete and marked as random
weights, so the board shows them as speed only. A shape for which something is missing is skipped, and says why.

    python -m benchmarks.gpu_results --plan          # what would run, and what is missing; needs no GPU
    python -m benchmarks.gpu_results --only OLMoE-1B-7B --batches 1,8,64
    python -m benchmarks.gpu_results --engine-args="--gpu-memory-utilization 0.85" \\
        --shape-args "OLMoE-1B-7B=--attention-backend TRITON_ATTN"

Batch sizes are measured a few at a time (`--per-cell`), each group with a result of its own: the same command again
keeps what is whole. Exit code 1 where anything was skipped or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.shapes import SHAPES, Shape, drawn, lacks_room, largest_scratch, no_gpu, read_shapes, shape_arguments

BATCHES = "1,2,4,8,16,32,64"
INPUT_TOKENS, OUTPUT_TOKENS, REPEATS = 512, 128, 3
PER_CELL = 4
"""Batch sizes that share a start: a lost cell costs as many levels, a further one two starts of the engine (timed and
recording, 60 to 90 s each with vLLM), and one of four levels fits into a lease of ten minutes."""
ROOM_TOKENS = 256
"""Of a sequence beyond its prompt and answer; a server is greeted with 90 tokens of this tokenizer."""
LENGTH_OPTIONS = {"vllm": "--max-model-len", "sglang": "--context-length"}
"""Models allow up to 163,840 tokens, and an engine reserves what they allow."""
DONE = "command.json"


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of `moe-cap profile`: some batch sizes of one shape."""

    shape: Shape
    arguments: tuple[str, ...]
    output: Path

    @property
    def is_kept(self) -> bool:
        """Whether this very command has been through."""
        path = self.output / DONE
        return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == list(self.arguments)


def engine_missing(engine: str) -> str | None:
    """Why the engine cannot be started, for people."""
    from moe_cap.measure.engines.registry import load_engine

    probe = load_engine(engine).probe()
    return None if probe.installed else f"engine {engine}: {probe.reason}"


def cells_of(shape: Shape, asked: argparse.Namespace, own: Mapping[str, str]) -> Iterator[Cell]:
    """The commands that measure one shape, smallest batches first."""
    lengths = ("--input-tokens", str(asked.input_tokens), "--output-tokens", str(asked.output_tokens))
    given = shlex.split(f"{asked.engine_args} {own.get(shape.name, '')}")
    if option := LENGTH_OPTIONS.get(asked.engine):
        given = [option, str(asked.input_tokens + asked.output_tokens + ROOM_TOKENS), *given]
    sizes = asked.batches.split(",")
    for first in range(0, len(sizes), asked.per_cell):
        batches = sizes[first : first + asked.per_cell]
        output = asked.output / shape.name / f"batch-{'-'.join(batches)}"
        arguments = (
            "profile", "--engine", asked.engine, "--model", str(asked.scratch / shape.name),
            "--precision", shape.precision, "--concurrency", ",".join(batches), *lengths,
            "--repeats", str(asked.repeats), "--output-dir", str(output), "--publish",
            *(["--", *given] if given else []),
        )  # fmt: skip
        yield Cell(shape, arguments, output)


def plan(shapes: Sequence[Shape], cells: Mapping[str, Sequence[Cell]]) -> Iterator[str]:
    """What would run, a line each."""
    for shape in shapes:
        stored = f"{shape.weights_bytes / 1e9:.1f} GB in {shape.precision}"
        yield f"{shape.name}: {shape.parameters / 1e9:.2f} G parameters, {stored}"
        for cell in cells[shape.name]:
            yield f"  moe-cap {shlex.join(cell.arguments)}" + ("  # kept" if cell.is_kept else "")
    yield f"results go to {os.environ.get('RESULTS_REPO') or os.environ.get('MOE_CAP_RESULTS') or 'eval-results'}"


def measure(shape: Shape, cells: Sequence[Cell], scratch: Path) -> bool:
    """Draw the weights and run what is not there yet; whether every command went through."""
    from moe_cap.cli import main as moe_cap

    waiting = [cell for cell in cells if not cell.is_kept]
    if not waiting:
        print(f"{shape.name}: measured before, kept", file=sys.stderr)
        return True
    whole = True
    with drawn(shape, scratch):
        for cell in waiting:
            if moe_cap(list(cell.arguments)) == 0:
                (cell.output / DONE).write_text(json.dumps(cell.arguments), encoding="utf-8")
            else:
                whole = False
    return whole


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="say what would run and what is missing")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these shapes alone")
    parser.add_argument("--shapes", type=Path, default=SHAPES, help="folder of config.json files")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--engine-args", default="", help="the engine's, as one string; its record has them")
    parser.add_argument("--shape-args", action="append", default=[], metavar="NAME=ARGS", help="for one shape")
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument("--per-cell", type=int, default=PER_CELL, help="batch sizes that share a start of the engine")
    parser.add_argument("--input-tokens", type=int, default=INPUT_TOKENS)
    parser.add_argument("--output-tokens", type=int, default=OUTPUT_TOKENS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--scratch", type=Path, help="for the weights; else /tmp or /dev/shm, by their room")
    parser.add_argument("--output", type=Path, default=Path("data/gpu-results"), help="kept results, tables, plots")
    parser.add_argument("--rehearsal", action="store_true", help="run without a GPU, for shapes that a CPU can carry")
    asked = parser.parse_args(arguments)
    asked.scratch = asked.scratch or largest_scratch([Path(tempfile.gettempdir()), Path("/dev/shm")])
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse_arguments(arguments)
    shapes = read_shapes(asked.shapes, asked.only)
    own = shape_arguments(asked.shape_args, shapes)
    cells = {shape.name: tuple(cells_of(shape, asked, own)) for shape in shapes}
    if asked.plan:
        print(*plan(shapes, cells), sep="\n")
    hindrances = [None if asked.rehearsal else no_gpu(), engine_missing(asked.engine)]
    rooms = {shape.name: lacks_room(shape, asked.scratch, rehearsal=asked.rehearsal) for shape in shapes}
    for line in filter(None, [*hindrances, *rooms.values()]):
        print(f"missing: {line}", file=sys.stderr)
    if asked.plan:
        return 0
    if any(hindrances):
        return 1
    runnable = [shape for shape in shapes if rooms[shape.name] is None]
    failed = [shape.name for shape in runnable if not measure(shape, cells[shape.name], asked.scratch)]
    if skipped := [name for name, reason in rooms.items() if reason]:
        print(f"skipped: {', '.join(skipped)}", file=sys.stderr)
    if failed:
        print(f"failed: {', '.join(failed)}; what is measured already is kept, run it again", file=sys.stderr)
    return int(bool(failed or skipped))


if __name__ == "__main__":
    sys.exit(main())
