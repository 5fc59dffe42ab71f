"""Layers on disk: the same tokens, scores and experts as the model in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from moe_cap.measure.engines import transformers, transformers_offload
from moe_cap.measure.engines.transformers_offload import ENGINE
from moe_cap.measure.model_files import ModelFiles
from tests.measure.engine_contract import LockStepContract, make_requests

pytestmark = pytest.mark.model


class TestOffloadEngine(LockStepContract):
    engine = ENGINE


def test_offloaded_layers_give_the_tokens_and_experts_of_the_model_in_memory(
    tiny_files: ModelFiles, tmp_path: Path
) -> None:
    requests, answers, rows, weights = make_requests(2), [], [], []
    for engine in (transformers.ENGINE, ENGINE):
        session = engine.start(engine.launch_spec(tiny_files, "fp32"), tmp_path / "log")
        completions = session.run(requests, 2).completions
        answers.append([done.tokens for done in completions])
        rows.append(session.route(requests, completions))
        weights.append(session.weights_bytes())
        session.stop()
    assert answers[0] == answers[1]
    assert weights[0] == weights[1]
    assert all(np.array_equal(a.experts, b.experts) for a, b in zip(*rows, strict=True))


def test_the_layers_lie_on_disk_and_go_with_the_session(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = ENGINE.start(ENGINE.launch_spec(tiny_files, "bf16"), tmp_path / "log")
    layers = tiny_files.config["num_hidden_layers"]
    assert session.describe().arguments["modules_by_place"]["disk"] == layers
    assert [path.name for path in tmp_path.glob("moe-cap-offload-*")]
    session.stop()
    assert not list(tmp_path.glob("moe-cap-offload-*"))


def test_every_tensor_has_one_place(tiny_files: ModelFiles) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_files.folder))
    places = transformers_offload.layers_on_disk(model)
    for name in model.state_dict():
        assert sum(name.startswith(f"{place}.") for place in places) == 1, name
