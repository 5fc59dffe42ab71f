"""Predicted bytes of single forward passes against the GPU's DRAM counters, vLLM on models of real size.

    .venv/bin/python -m benchmarks.dram_bytes                             # all: decode and prefill, batch 1 to 64
    .venv/bin/python -m benchmarks.dram_bytes --only gpt-oss-20b --batches 1,8,64 --kinds decode
    .venv/bin/python -m benchmarks.dram_bytes --plan                      # what would be counted; needs no GPU
    .venv/bin/python -m benchmarks.dram_bytes --rehearsal --shapes FOLDER  # small shapes, on a processor; not counted

For every shape: draw random weights, start vLLM once inside `ncu` (in one process, eager), and for every kind and batch
look at one step (`dram_step.py`): a decode of sequences with `--context` tokens behind them, a prefill of whole prompts
of `--prefill` tokens. The experts are those of that very pass. The prediction is the accounting's `total_read`, with
the padding that the kernels of mxfp4 add (`expert_padding`); activations are in no account, so that a prefill of many
tokens reads more than is predicted, and what was written beside the cache stands in the table to judge that by.

Exit code 1 where a prediction is more than 1 % away (0.5 % is the target), and where a shape has no room or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.dram_account import LIMIT, Cell, Row, as_json, compare, parse_members, step_of, traced_ids
from benchmarks.dram_counters import (
    CounterError,
    PassCounters,
    UnreadableCountersError,
    find_ncu,
    ncu_command,
    parse_ncu_csv,
)
from benchmarks.dram_engine import engine_arguments, with_modelled_kernel
from benchmarks.dram_probe import PLAIN_NUMBERS, explain_replays, probe_counters
from benchmarks.shapes import SHAPES, Shape, drawn, lacks_room, largest_scratch, no_gpu, read_shapes, shape_arguments
from moe_cap.architecture import parse_config
from moe_cap.errors import EngineStartError, InvalidRunError, MoECapError
from moe_cap.measure.engines import inside
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.server import GRACE_S, clean_environment, first_error
from moe_cap.measure.engines.vllm_log import parse_log
from moe_cap.measure.guarded import GuardedProcess
from moe_cap.precision import parse_quantization

STEP = Path(__file__).resolve().parent / "dram_step.py"
BATCHES, KINDS = "1,2,4,8,16,32,64", "decode,prefill"
CONTEXT, PREFILL = 512, 64


@dataclass(frozen=True, slots=True)
class Passes:
    """One start of vLLM: its passes, and where what comes of them lies."""

    shape: Shape
    cells: tuple[Cell, ...]
    folder: Path

    @property
    def log(self) -> Path:
        """What vLLM said."""
        return self.folder / "vllm.log"

    @property
    def counters(self) -> Path:
        """What ncu wrote."""
        return self.folder / "ncu.csv"

    @property
    def trace(self) -> Path:
        """What the recording worker wrote, on a processor."""
        return self.folder / "passes.jsonl"


def child_command(home: Path, asked: Path) -> list[str]:
    """The step's program in vLLM's own environment."""
    return [str(home / "bin" / "python"), str(STEP), str(asked)]


def engine_home() -> Path:
    """Where vLLM is installed.

    Raises:
        EngineStartError: nowhere.
    """
    engine = load_engine("vllm")
    found = engine.find()
    if found is None:
        raise EngineStartError(f"vllm is {engine.probe().reason}")
    return Path(found.home)


def run_passes(passes: Passes, model: Path, given: Sequence[str], ncu: str | None) -> None:
    """Start vLLM, counted where there is an `ncu`.

    Raises:
        CounterError: ncu does not give its counters.
        EngineStartError: vLLM is not installed.
        InvalidRunError: it failed, or formed other passes.
    """
    home = engine_home()
    asked = passes.folder / "asked.json"
    cells = [{"kind": cell.kind, "batch": cell.batch, "tokens": cell.tokens} for cell in passes.cells]
    arguments = engine_arguments(model, passes.cells, given, rehearsal=ncu is None)
    vocabulary = int(passes.shape.config["vocab_size"])
    told = {"engine_args": arguments, "vocab_size": vocabulary, "cells": cells, "output": str(passes.folder)}
    asked.write_text(json.dumps(told), encoding="utf-8")
    command = child_command(home, asked)
    environ = PLAIN_NUMBERS | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    }  # fmt: skip
    if ncu is None:
        environ |= {"PYTHONPATH": str(Path(inside.__file__).parent), "MOE_CAP_TRACE": str(passes.trace)}
    process = GuardedProcess(
        command if ncu is None else ncu_command(ncu, passes.counters, command),
        log=passes.log, ending=passes.folder / "ending.json",
        environ=clean_environment(os.environ, environ), grace_s=GRACE_S,
    )  # fmt: skip
    try:
        process.wait()
    finally:
        process.stop()
    if (status := process.read_ending().status) != 0:
        _explain(passes, status)


def _explain(passes: Passes, status: int | None) -> None:
    """Why the child failed: vLLM's own reason, and before it what ncu names as its cause.

    Counters that are cut off or of too few passes are what a crash leaves, and no reason.
    """
    said = passes.log.read_text(encoding="utf-8", errors="replace")
    ended = f"vLLM ended with status {status}: {first_error(said) or said.strip()[-2000:]}"
    if passes.counters.is_file():
        try:
            parse_ncu_csv(passes.counters.read_text(encoding="utf-8", errors="replace"), len(passes.cells))
        except UnreadableCountersError as error:
            ended = f"{ended}\n{error}"
        except CounterError as error:
            raise type(error)(f"{error}\n{ended}") from None
    raise InvalidRunError(ended)


def keep_words(passes: Passes, output: Path) -> None:
    """Leave what vLLM and ncu said beside the results: the folder of the passes goes."""
    output.mkdir(parents=True, exist_ok=True)
    for source, name in ((passes.log, "vllm.log"), (passes.counters, "ncu.csv")):
        if source.is_file():
            kept = shutil.copyfile(source, output / f"{passes.shape.name}.{name}")
            print(f"{passes.shape.name}: kept {kept}", file=sys.stderr)


def read_rows(passes: Passes, ncu: str | None) -> list[Row]:
    """The passes that were run, each against its counters."""
    arch, storage = parse_config(passes.shape.config), parse_quantization(passes.shape.config)
    counted: Sequence[PassCounters | None] = [None] * len(passes.cells)
    if ncu is not None:
        counted = parse_ncu_csv(passes.counters.read_text(encoding="utf-8"), len(passes.cells))
    backend = str(parse_log(passes.log.read_text(encoding="utf-8", errors="replace")).get("moe_backend"))
    rows = []
    for cell, counters in zip(passes.cells, counted, strict=True):
        members = parse_members((passes.folder / f"{cell.name}.json").read_text(encoding="utf-8"))
        returned = passes.folder / f"{cell.name}.npy"
        if returned.is_file():
            ids = np.load(returned, allow_pickle=False)[:, list(arch.moe_layers)].astype(np.int16)
        elif passes.trace.is_file():
            with passes.trace.open(encoding="utf-8") as lines:
                ids = traced_ids(lines, members)
        else:
            raise InvalidRunError("vLLM returned no routed experts: see --enable-return-routed-experts in its log")
        step = step_of(cell.kind, members, ids, arch)
        rows.append(compare(passes.shape.name, cell, step, arch, storage, backend, counters))
    return rows


def table(rows: Sequence[Row]) -> str:
    """For people; GB are 10^9 bytes."""
    head = "| shape | step | batch | experts | predicted GB | counted GB | predicted/counted | other written GB | |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        counted = "-" if row.counted is None else f"{row.counted / 1e9:.4f}"
        ratio = "-" if row.error is None else f"{1 + row.error:.4f}"
        written = "-" if row.other_written is None else f"{row.other_written / 1e9:.4f}"
        about = f"{row.shape} | {row.kind} | {row.batch} | {row.distinct_experts:.1f}"
        lines.append(f"| {about} | {row.predicted / 1e9:.4f} | {counted} | {ratio} | {written} | {row.verdict} |")
    return "\n".join(lines)


def measure(shape: Shape, asked: argparse.Namespace, given: Sequence[str], ncu: str | None) -> list[Row]:
    """Every pass of one shape; its rows are kept in a file of its name."""
    lengths = {"decode": asked.context, "prefill": asked.prefill}
    cells = tuple(Cell(kind, batch, lengths[kind]) for kind, batch in product(asked.kinds, asked.batches))
    with tempfile.TemporaryDirectory(prefix="moe-cap-dram-") as folder, drawn(shape, asked.scratch) as model:
        passes = Passes(shape, cells, Path(folder))
        try:
            run_passes(passes, model, given, ncu)
            rows = read_rows(passes, ncu)
        except (CounterError, MoECapError):
            keep_words(passes, asked.output)
            raise
        told = parse_log(passes.log.read_text(encoding="utf-8", errors="replace"))
    asked.output.mkdir(parents=True, exist_ok=True)
    version = load_engine("vllm").probe().version
    document = {
        "shape": shape.name,
        "vllm": version,
        "engine": told,
        "limit": LIMIT,
        "rows": [as_json(row) for row in rows],
    }
    (asked.output / f"{shape.name}.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return rows


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="say what would be counted and what is missing")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these shapes alone")
    parser.add_argument("--shapes", type=Path, default=SHAPES, help="folder of config.json files")
    parser.add_argument("--batches", type=lambda text: tuple(map(int, text.split(","))), default=BATCHES)
    parser.add_argument("--kinds", type=lambda text: tuple(text.split(",")), default=KINDS)
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens before a decode step")
    parser.add_argument("--prefill", type=int, default=PREFILL, help="tokens of each prompt of a prefill step")
    parser.add_argument("--engine-args", default="", help="vLLM's, as one string")
    parser.add_argument("--shape-args", action="append", default=[], metavar="NAME=ARGS", help="for one shape")
    parser.add_argument("--ncu", help="the program, where it is not on the path")
    parser.add_argument("--scratch", type=Path, help="for the weights; else /tmp or /dev/shm, by their room")
    parser.add_argument("--output", type=Path, default=Path("data/dram-bytes"), help="one JSON a shape")
    parser.add_argument("--rehearsal", action="store_true", help="without GPU and counters, for small shapes")
    asked = parser.parse_args(arguments)
    asked.scratch = asked.scratch or largest_scratch([Path(tempfile.gettempdir()), Path("/dev/shm")])
    if strange := set(asked.kinds) - set(KINDS.split(",")):
        parser.error(f"--kinds {', '.join(sorted(strange))}: expected {KINDS}")
    return asked


def counting(given: str | None) -> str:
    """The `ncu` that reads this GPU's counters, tried before anything is drawn.

    Raises:
        EngineStartError: there is no GPU, or no vLLM.
        CounterError: there is no ncu, or it cannot read them.
    """
    if reason := no_gpu():
        raise EngineStartError(reason)
    ncu = find_ncu(given)
    if (times := probe_counters(ncu, engine_home())) > 1:
        print(f"note: {explain_replays(times)}", file=sys.stderr)
    return ncu


def plan(shapes: Sequence[Shape], asked: argparse.Namespace, own: Mapping[str, str]) -> Iterator[str]:
    """What would be counted, a line a shape, and what is missing for it."""
    for shape in shapes:
        given = shlex.split(f"{asked.engine_args} {own.get(shape.name, '')}")
        told = shlex.join(given if asked.rehearsal else with_modelled_kernel(shape, given))
        steps = f"{' and '.join(asked.kinds)} at batch {', '.join(map(str, asked.batches))}"
        yield f"{shape.name}: {steps}" + (f", vLLM with {told}" if told else "")
        if reason := lacks_room(shape, asked.scratch, rehearsal=asked.rehearsal):
            yield f"missing: {reason}"


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse_arguments(arguments)
    shapes = read_shapes(asked.shapes, asked.only)
    own = shape_arguments(asked.shape_args, shapes)
    if asked.plan:
        try:
            print(*plan(shapes, asked, own), sep="\n")
        except EngineStartError as error:
            print(f"refused: {error}", file=sys.stderr)
            return 2
        return 0
    try:
        ncu = None if asked.rehearsal else counting(asked.ncu)
    except (CounterError, MoECapError) as error:
        print(f"missing: {error}", file=sys.stderr)
        return 1
    rows: list[Row] = []
    failed = False
    for shape in shapes:
        given = shlex.split(f"{asked.engine_args} {own.get(shape.name, '')}")
        try:
            if reason := lacks_room(shape, asked.scratch, rehearsal=asked.rehearsal):
                raise EngineStartError(reason)
            rows += measure(shape, asked, given if ncu is None else with_modelled_kernel(shape, given), ncu)
        except (CounterError, MoECapError) as error:
            print(f"{shape.name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = True
    print(table(rows))
    return int(failed or any(row.verdict == "outside" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
