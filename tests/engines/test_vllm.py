"""vLLM's server on a processor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from benchmarks.wider_model import widen_heads
from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.vllm import RecordingWorker, VllmEngine
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED
from tests.engines.recorded_runs import SEVERAL, make_shapes
from tests.engines.server_contract import PATIENT, ServerContract
from tests.engines.written_passes import WritingServer, carry_truthfully, of_vllm, told_at_last


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


@pytest.fixture(scope="module")
def writing(olmoe_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritingServer]:
    spec = RecordingWorker().spec(ENGINE.launch_spec(olmoe_files, "fp32"))
    session = ENGINE.start(spec, tmp_path_factory.mktemp("writing") / "engine.log")
    yield of_vllm(session)
    session.stop()


@pytest.mark.parametrize("equal", [True, False])
def test_passes_of_one_user_are_read_off_the_arrivals(
    writing: WritingServer, olmoe_files: ModelFiles, equal: bool
) -> None:
    told_at_last(writing, make_shapes(olmoe_files, 1, equal=equal), 1)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("concurrency", SEVERAL)
def test_passes_of_several_users_are_read_as_vllm_wrote_them_down_or_not_at_all(
    writing: WritingServer, olmoe_files: ModelFiles, concurrency: int, equal: bool
) -> None:
    carry_truthfully(writing, make_shapes(olmoe_files, concurrency, equal=equal), concurrency)
