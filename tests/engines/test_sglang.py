"""SGLang on a processor, with stubs for its kernels, whose only published build needs CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.sglang_on_a_processor import SglangOnAProcessor
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.passes import UNALIGNED
from moe_cap.measure.model_files import ModelFiles
from tests.engines.recorded_runs import CONCURRENCIES, make_shapes
from tests.engines.server_contract import PATIENT, ServerContract
from tests.engines.sglang_passes import as_told, of_message, prompts_of, telling, told_passes

ENGINE = SglangOnAProcessor(PATIENT)


class TestSglang(ServerContract):
    engine = ENGINE


@pytest.fixture(scope="module")
def told_session(olmoe_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerSession]:
    """Of a server that also tells its passes itself."""
    log = tmp_path_factory.mktemp("told") / "engine.log"
    session = ENGINE.start(telling(ENGINE.launch_spec(olmoe_files, "fp32")), log)
    yield session
    session.stop()


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("concurrency", CONCURRENCIES)
def test_passes_read_off_the_arrivals_are_those_that_sglang_told(
    told_session: ServerSession, olmoe_files: ModelFiles, tmp_path: Path, concurrency: int, equal: bool
) -> None:
    requests = make_shapes(olmoe_files, concurrency, equal=equal)
    told_session.warm_up(requests[:concurrency], concurrency)
    with told_passes(told_session, tmp_path) as passes:
        run = told_session.run(requests, concurrency)
    read = [as_told(step, prompts_of(requests)) for step in run.steps]
    assert run.no_steps_reason in {None, UNALIGNED}, "only a busy machine may be the reason"
    assert read in ([], [of_message(told) for told in passes]), "told nothing, or the truth"
    print(f"\n{len(read)} of {len(passes)} passes were told")
