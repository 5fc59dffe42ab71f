"""vLLM's server on a processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.vllm import TRACE, RecordingWorker, VllmEngine
from moe_cap.measure.engines.vllm_routing import parse_trace
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED
from tests.engines.server_contract import PATIENT, TOGETHER, ServerContract, make_requests
from tests.engines.wide_heads import widen_heads


class EagerVllm(VllmEngine):
    """Without the compiler, which takes minutes on two cores at every start."""

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        spec = super().launch_spec(files, precision)
        return replace(spec, argv=(*spec.argv, "--enforce-eager"))


ENGINE = EagerVllm(PATIENT)


@pytest.fixture(scope="module")
def shipped_files_with_wide_heads(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    """vLLM's attention for processors has no kernel for heads of 16; it begins at 32."""
    folder = widen_heads(SHIPPED, tmp_path_factory.mktemp("wide") / SHIPPED.name)
    return find_model(Submission(model=str(folder)))


class TestVllm(ServerContract):
    engine = ENGINE
    instead: ClassVar[dict[str, str]] = {"shipped_files": "shipped_files_with_wide_heads"}


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
