"""Record what test_arrivals.py replays, from real servers: `python -m tests.engines.record_arrivals vllm llama-cpp`.

Runs at three concurrencies, of equal and of unequal requests; what the client saw, and what the server wrote down of
every pass. A run whose arrivals tell nothing, as on a busy machine, is carried again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from moe_cap.measure.engines.vllm import RecordingWorker
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.engines import test_llama_cpp, test_vllm
from tests.engines.conftest import SHIPPED, write_olmoe
from tests.engines.recorded_runs import CONCURRENCIES, as_record, make_shapes, name_of
from tests.engines.written_passes import WritingServer, of_llama_cpp, of_vllm, told_at_last

FIXTURES = Path(__file__).parents[1] / "measure" / "fixtures"


def start_vllm(folder: Path) -> tuple[ModelFiles, WritingServer]:
    files = find_model(Submission(model=str(write_olmoe(folder / "random-olmoe"))))
    spec = RecordingWorker().spec(test_vllm.ENGINE.launch_spec(files, "fp32"))
    return files, of_vllm(test_vllm.ENGINE.start(spec, folder / "engine.log"))


def start_llama_cpp(folder: Path) -> tuple[ModelFiles, WritingServer]:
    files = find_model(Submission(model=str(SHIPPED)))
    return files, of_llama_cpp(test_llama_cpp.start_recording(files, folder), files)


SERVERS: dict[str, tuple[str, Callable[[Path], tuple[ModelFiles, WritingServer]]]] = {
    "vllm": ("vllm-0.32-passes.jsonl", start_vllm),
    "llama-cpp": ("llama-cpp-b11434-passes.jsonl", start_llama_cpp),
}


def record(name: str) -> None:
    fixture, start = SERVERS[name]
    files, server = start(Path(tempfile.mkdtemp()))
    try:
        with (FIXTURES / fixture).open("w", encoding="utf-8") as lines:
            for concurrency in CONCURRENCIES:
                for equal in (True, False):
                    requests = make_shapes(files, concurrency, equal=equal)
                    run, written = told_at_last(server, requests, concurrency)
                    told = {"name": name_of(concurrency, equal=equal), **as_record(requests, run), "passes": written}
                    lines.write(json.dumps(told, separators=(",", ":")) + "\n")
                    print(f"{name}, {told['name']}: {len(written)} passes")
    finally:
        server.session.stop()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        record(each)
