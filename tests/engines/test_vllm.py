"""vLLM as people run it, on a processor."""

from __future__ import annotations

from pathlib import Path

from moe_cap.measure.engines.vllm import TRACE, RecordingWorker, VllmEngine
from moe_cap.measure.engines.vllm_routing import parse_trace
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import PATIENT, TOGETHER, ServerContract, make_requests

ENGINE = VllmEngine(PATIENT)


class TestVllm(ServerContract):
    engine = ENGINE


def test_passes_read_off_the_arrivals_are_those_that_vllm_wrote_down(shipped_files: ModelFiles, tmp_path: Path) -> None:
    requests = make_requests(shipped_files, 12)
    spec = RecordingWorker().spec(ENGINE.launch_spec(shipped_files, "fp32"))
    session = ENGINE.start(spec, tmp_path / "engine.log")
    try:
        session.warm_up(requests, TOGETHER)
        with Path(session.server.fill(TRACE)).open(encoding="utf-8") as trace:
            trace.read()
            run = session.run(requests, TOGETHER)
            passes = parse_trace(trace)
    finally:
        session.stop()
    composition = [sorted(member.num_tokens for member in one.members) for one in passes]
    assert sum(map(sum, composition)) == sum(len(r.prompt) + r.output_tokens - 1 for r in requests)
    assert [len(one.experts) for one in passes] == [sum(tokens) for tokens in composition]
    assert [sorted(member.num_tokens for member in step.members) for step in run.steps] == composition
    contexts = [sorted(member.first_position for member in one.members) for one in passes]
    assert [sorted(member.first_position for member in step.members) for step in run.steps] == contexts
