"""Engines of which only the launch specification exists: pure, honest, and never offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_cap.errors import EngineStartError, SubmissionError
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES, listed_engines

FILES = ModelFiles("some-moe", "0", Path("/models/some-moe"), {}, ())
UNRUN = {"tensorrt-llm": ("serve", "/models/some-moe"), "ktransformers": ("--kt-weight-path", "/models/some-moe")}


@pytest.mark.parametrize("name", UNRUN)
def test_it_is_specified_but_not_offered(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CAP_ENGINES", str(tmp_path))
    engine = load_engine(name)
    spec = engine.launch_spec(FILES, "bf16")
    assert spec == engine.launch_spec(FILES, "bf16")
    flag, value = UNRUN[name]
    assert spec.argv[spec.argv.index(flag) + 1] == value
    assert name not in {offer.name for offer in listed_engines()}
    found = engine.probe()
    assert not found.installed
    assert "not installed in" in str(found.reason)
    with pytest.raises(EngineStartError, match="not installed"):
        engine.start(spec, tmp_path / "engine.log")


@pytest.mark.parametrize("name", UNRUN)
def test_a_precision_beyond_the_checkpoints_own_is_refused(name: str) -> None:
    assert ENGINES[name].precisions == ("bf16",)
    with pytest.raises(SubmissionError):
        load_engine(name).launch_spec(FILES, "int4")
