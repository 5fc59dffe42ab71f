"""vLLM's server on a processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.vllm import TRACE, RecordingWorker, VllmEngine
from moe_cap.measure.engines.vllm_routing import parse_trace
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import PATIENT, TOGETHER, ServerContract, make_requests


class EagerVllm(VllmEngine):
    """Without the compiler, which takes minutes on two cores at every start."""

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        spec = super().launch_spec(files, precision)
        return replace(spec, argv=(*spec.argv, "--enforce-eager"))


ENGINE = EagerVllm(PATIENT)


class TestVllm(ServerContract):
    engine = ENGINE
    unserved: ClassVar[dict[str, str]] = {
        "shipped_files": "vLLM's attention for processors has no kernel for heads of 16; it begins at 32"
    }


def test_passes_read_off_the_arrivals_are_those_that_vllm_wrote_down(olmoe_files: ModelFiles, tmp_path: Path) -> None:
    requests = make_requests(olmoe_files, 12)
    spec = RecordingWorker().spec(ENGINE.launch_spec(olmoe_files, "fp32"))
    session = ENGINE.start(spec, tmp_path / "engine.log")
    try:
        session.warm_up(requests, TOGETHER)
        with Path(session.server.fill(TRACE)).open(encoding="utf-8") as trace:
            trace.read()
            run = session.run(requests, TOGETHER)
            passes = parse_trace(trace)
    finally:
        session.stop()
    written = [sorted((member.first_position, member.num_tokens) for member in one.members) for one in passes]
    assert sum(number for one in written for _, number in one) == sum(
        len(request.prompt) + request.output_tokens - 1 for request in requests
    )
    read = [sorted((member.first_position, member.num_tokens) for member in step.members) for step in run.steps]
    assert read in ([], written), "told nothing, or the truth"
