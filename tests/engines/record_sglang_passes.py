"""Record what test_turns.py replays, from a real SGLang: `python -m tests.engines.record_sglang_passes`.

Runs of a random OLMoE at three concurrencies, of equal and of unequal requests, once with prompts that fit into a pass
and once with prompts that are cut; what the client saw, what the log said, and what SGLang told of every pass.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.sglang_on_a_processor import SglangOnAProcessor
from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.sglang_log import PREFILL
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.engines.conftest import write_olmoe
from tests.engines.recorded_runs import CONCURRENCIES, as_record, make_shapes, name_of
from tests.engines.server_contract import PATIENT
from tests.engines.sglang_passes import of_message, telling, told_passes

FIXTURE = Path(__file__).parents[1] / "measure" / "fixtures" / "sglang-0.5.23-passes.jsonl"
CHUNKS = (4096, 64)
"""Tokens of prompts in a pass; the first is what this SGLang takes of its own."""


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    files = find_model(Submission(model=str(write_olmoe(folder / "random-olmoe"))))
    with FIXTURE.open("w", encoding="utf-8") as fixture:
        for chunk in CHUNKS:
            for run in record(files, chunk, folder):
                fixture.write(json.dumps(run, separators=(",", ":")) + "\n")


def record(files: ModelFiles, chunk: int, folder: Path) -> list[dict[str, Any]]:
    engine = SglangOnAProcessor(PATIENT)
    spec = telling(engine.launch_spec(files, "fp32"))
    session = engine.start(
        replace(spec, argv=(*spec.argv, "--chunked-prefill-size", str(chunk))), folder / f"{chunk}.log"
    )
    try:
        return [
            carry(session, make_shapes(files, concurrency, equal=equal), concurrency, folder)
            | {"name": f"chunk {chunk}, {name_of(concurrency, equal=equal)}"}
            for concurrency in CONCURRENCIES
            for equal in (True, False)
        ]
    finally:
        session.stop()


def carry(session: ServerSession, requests: Sequence[Request], concurrency: int, folder: Path) -> dict[str, Any]:
    session.warm_up(requests[:concurrency], concurrency)
    with told_passes(session, folder) as passes:
        before = len(session.server.said())
        run = session.run(requests, concurrency)
    said = session.server.said()[before:].splitlines()
    return {
        "log": [line for line in said if PREFILL.search(line)],
        "passes": [of_message(told) for told in passes],
        **as_record(requests, run),
    }


if __name__ == "__main__":
    main()
