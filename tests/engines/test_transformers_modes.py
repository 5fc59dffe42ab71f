"""The engines that transformers is, on both models; the compiled one takes minutes, so none is in `make test`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moe_cap.architecture import parse_config
from moe_cap.measure.engines.base import EngineRun, RoutingRows
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.join import agreement, check_rows
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import OUTPUT, PROMPT, SAME_SETS, make_requests

MODES = ("transformers-static", "transformers-continuous", "transformers-offload")


def _measure(name: str, files: ModelFiles, log: Path) -> tuple[EngineRun, tuple[RoutingRows, ...]]:
    engine, requests = load_engine(name), make_requests(files)
    session = engine.start(engine.launch_spec(files, "fp32"), log)
    try:
        session.warm_up(requests, 3)
        run = session.run(requests, 3)
        return run, session.route(requests, run.completions)
    finally:
        session.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch
@pytest.mark.parametrize("model", ["shipped_files", "olmoe_files"])
@pytest.mark.parametrize("name", MODES)
def test_every_mode_says_and_routes_what_generate_does(
    name: str, model: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    files: ModelFiles = request.getfixturevalue(model)
    plain, plain_rows = _measure("transformers", files, tmp_path / "plain.log")
    run, rows = _measure(name, files, tmp_path / "log")
    assert [done.tokens for done in run.completions] == [done.tokens for done in plain.completions]
    same = [
        (np.sort(a.experts, axis=-1) == np.sort(b.experts, axis=-1)).all(axis=-1)
        for a, b in zip(plain_rows, rows, strict=True)
    ]
    assert np.mean(np.concatenate(same)) >= SAME_SETS
    assert agreement(rows, {done.request_id: done for done in run.completions}) >= SAME_SETS
    check_rows(rows, parse_config(files.config))
    computed = sum(member.num_tokens for step in run.steps for member in step.members)
    assert computed == len(rows) * (PROMPT + OUTPUT - 1)
