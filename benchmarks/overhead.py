"""What measuring costs: our timing pass against the engine driven bare, and the routing pass against the timing pass.

    .venv/bin/python -m benchmarks.overhead                                  # every usual engine that is installed
    .venv/bin/python -m benchmarks.overhead --engine vllm --model FOLDER --batch 1,8,64 --rounds 20

One running engine carries the same requests on both sides, so weights, number format, threads, cache and warm-up are
the same; how the engine is set up is our choice, stands in every result, and is not what is compared here. Sides take
turns (bare, ours, ours, bare, then the other way round), so that a steady drift of the machine cancels in each block.

* Ours is the timed pass of a level as the pipeline runs it (`level.time_level`), energy counters read at both ends.
* Bare is the least that gives the figure (`overhead_bare.py`): a `generate` loop without a streamer, or bare sockets in
  one thread with the plainest body. Whatever ours asks of the engine beyond that counts as ours.

Two ratios, each with its bootstrap interval over the blocks (95 %) and a verdict: the median of the blocks, which holds
everything, and the lower quartile of the passes, which little else disturbed. What disturbs a machine lasts about a
second, so that many blocks shorter than that decide 1 % where few long ones do not. A pass that the pipeline refuses
drops its whole block, which is carried again. Exit code 1 where an interval lies above 1.01, or nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.overhead_figures import LIMIT, Pass, Ratio, median_of, ratio_of
from benchmarks.overhead_level import Level, Row
from benchmarks.sglang_on_a_processor import SglangOnAProcessor
from benchmarks.wider_model import write_wider
from moe_cap.errors import MoECapError
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.model_files import find_model
from moe_cap.measure.power import open_power_meter
from moe_cap.measure.probe import QUIET_SHARE, busy_share
from moe_cap.measure.prompts import build_requests, worked_examples
from moe_cap.submission import Submission

WIDER = Path(__file__).resolve().parent.parent / ".cache" / "overhead" / "wider-moe"
USUAL = ("transformers", "vllm", "sglang", "llama-cpp")
STUBBED = {"sglang-stubs": SglangOnAProcessor()}
ENGINES = (*USUAL, "transformers-static", "transformers-offload", "llama-cpp-offload", *STUBBED)
"""Those that `overhead_bare.py` can drive; the usual ones where nobody names any."""
SIDES = ("bare", "ours")
FEWEST_ROUNDS = 2
"""One block has no spread."""


def measure(engine_name: str, asked: argparse.Namespace) -> Iterator[Row]:
    """Start an engine and measure it at every batch size.

    Raises:
        MoECapError: it does not run here, or not this model.
    """
    engine = STUBBED.get(engine_name) or load_engine(engine_name)
    submission = Submission(model=asked.model, engine=engine.name, precision=asked.precision)
    spec = engine.launch_spec(find_model(submission), asked.precision)
    with tempfile.TemporaryDirectory(prefix="moe-cap-overhead-") as scratch:
        session = engine.start(spec, Path(scratch) / "engine.log")
        try:
            passages, meter = worked_examples(), open_power_meter()
            for batch in asked.batch:
                requests = build_requests(
                    passages, session.tokenizer, name=f"overhead-{batch}", number=asked.waves * batch,
                    input_tokens=asked.input_tokens, output_tokens=asked.tokens, seed=0,
                )  # fmt: skip
                yield Level(session, spec, requests, batch, meter).measure(asked.rounds, engine.probe().routing)
        finally:
            session.stop()


def measure_all(asked: argparse.Namespace) -> list[Row]:
    """Every engine in turn; one that cannot be measured is told and left out."""
    rows: list[Row] = []
    for name in asked.engine or [name for name in USUAL if load_engine(name).probe().installed]:
        try:
            for row in measure(name, asked):
                rows.append(row)
                found = f"{_interval(row.tpot)}, lower quartile {_interval(row.quiet_tpot)}"
                print(f"{name}, batch {row.batch}: {found}", file=sys.stderr, flush=True)
        except MoECapError as error:
            print(f"{name} was not measured: {error}", file=sys.stderr, flush=True)
    return rows


def timing_table(rows: Sequence[Row]) -> Iterator[str]:
    """Time per token of both sides."""
    yield (
        "| engine | batch | bare TPOT, ms | ours | ours / bare | <= 1.01 | lower quartile | <= 1.01 | whole pass "
        "| client, us a token | same answers | refused |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        bare_s, ours_s = (median_of(row.blocks, side, lambda each: each.tpot_s) for side in SIDES)
        tpot, quiet = row.tpot, row.quiet_tpot
        yield (
            f"| {row.engine} {row.version} | {row.batch} | {bare_s * 1e3:.3f} | {ours_s * 1e3:.3f} "
            f"| {_interval(tpot)} | {tpot.verdict(LIMIT)} | {_interval(quiet)} | {quiet.verdict(LIMIT)} "
            f"| {_interval(row.wall)} | {_clients(row)} | {row.agreeing:.0%} "
            f"| {row.refused} of {len(row.blocks) + row.refused} |"
        )
    if len(rows) > 1:
        yield _together(rows)


def _together(rows: Sequence[Row]) -> str:
    """The blocks of all rows as one: ratios have no unit, so engines and batch sizes can be put together."""
    blocks = [block for row in rows for block in row.blocks]
    tpot, wall = ratio_of(blocks, lambda each: each.tpot_s), ratio_of(blocks, lambda each: each.wall_s)
    refused = sum(row.refused for row in rows)
    return (
        f"| all | | | | {_interval(tpot)} | {tpot.verdict(LIMIT)} | | | {_interval(wall)} | | "
        f"| {refused} of {len(blocks) + refused} |"
    )


def routing_table(rows: Sequence[Row]) -> Iterator[str]:
    """The routing pass of one level over its timing pass."""
    yield "| engine | batch | timing, s | routing, s | routing / timing | starts, s | with starts | more a step, ms |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        if (cost := row.routing) is None:
            continue
        starts = "" if cost.starts_s is None else " + ".join(f"{start_s:.1f}" for start_s in cost.starts_s)
        step = "" if cost.step_s is None else f"{cost.step_s * 1e3:.3f}"
        yield (
            f"| {row.engine} {row.version} | {row.batch} | {cost.timed_s:.3f} | {cost.routed_s:.3f} | {cost.share:.2f} "
            f"| {starts} | {cost.share_with_starts:.2f} | {step} |"
        )


def _clients(row: Row) -> str:
    """Processor time of both clients."""
    return "" if (both := row.client_s_per_token) is None else " / ".join(f"{each_s * 1e6:.0f}" for each_s in both)


def _interval(ratio: Ratio) -> str:
    return f"{ratio.value:.4f} ({ratio.low:.4f} to {ratio.high:.4f})"


def as_json(asked: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    """Everything, raw passes included."""

    def passes(row: Row) -> list[dict[str, list[dict[str, float]]]]:
        return [{side: [_measured(each) for each in getattr(block, side)] for side in SIDES} for block in row.blocks]

    return {
        "limit": LIMIT,
        "asked": {name: str(value) for name, value in vars(asked).items()},
        "machine": machine(),
        "rows": [
            {
                "engine": row.engine, "version": row.version, "batch": row.batch, "refused": row.refused,
                "tpot": asdict(row.tpot), "quiet_tpot": asdict(row.quiet_tpot), "wall": asdict(row.wall),
                "verdict": row.tpot.verdict(LIMIT), "quiet_verdict": row.quiet_tpot.verdict(LIMIT),
                "agreeing": row.agreeing, "routing": None if row.routing is None else asdict(row.routing),
                "blocks": passes(row),
            }
            for row in rows
        ],
    }  # fmt: skip


def _measured(each: Pass) -> dict[str, float]:
    return {"tpot_s": each.tpot_s, "wall_s": each.wall_s, "cpu_s": each.cpu_s}


def machine() -> str:
    """For the head of the tables."""
    busy = busy_share()
    warning = ": BUSY, these figures say nothing" if busy > QUIET_SHARE else ""
    return (
        f"{platform.platform()}, {len(os.sched_getaffinity(0))} processors, Python {platform.python_version()}, "
        f"load average {busy:.2f} per processor{warning}"
    )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", choices=ENGINES, help=f"default: of {', '.join(USUAL)} what is here")
    parser.add_argument("--model", help="folder or Hub id; default: the shipped model made wider (wider_model.py)")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch", type=lambda text: tuple(map(int, text.split(","))), default=(1, 8))
    parser.add_argument("--input-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--waves", type=int, default=1, help="requests of one pass, in batches")
    parser.add_argument("--rounds", type=int, default=200, help="blocks of four passes")
    parser.add_argument("--json", type=Path, help="everything, raw")
    asked = parser.parse_args(arguments)
    if asked.rounds < FEWEST_ROUNDS or asked.tokens < 2 or min(*asked.batch, asked.waves) < 1:
        parser.error(f"at least {FEWEST_ROUNDS} rounds, 2 tokens, a wave and a batch of 1")
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse_arguments(arguments)
    asked.model = asked.model or str(write_wider(WIDER))
    before = machine()
    rows = measure_all(asked)
    print(before, machine(), *timing_table(rows), "", *routing_table(rows), sep="\n")
    if asked.json:
        asked.json.write_text(json.dumps(as_json(asked, rows), indent=1), encoding="utf-8")
    found = [ratio.verdict(LIMIT) for row in rows for ratio in (row.tpot, row.quiet_tpot)]
    return int(not found or "missed" in found)


if __name__ == "__main__":
    sys.exit(main())
