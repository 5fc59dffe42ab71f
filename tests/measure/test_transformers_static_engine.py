"""What the compiled engine asks of `generate`; that it runs is for tests/engines, for it takes minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_cap.measure.engines.generation import fixed_length
from moe_cap.measure.engines.transformers_static import ENGINE
from moe_cap.measure.model_files import ModelFiles
from tests.measure.engine_contract import make_requests

pytestmark = pytest.mark.model


def test_compilation_is_asked_for_on_this_device_too(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ENGINE.start(ENGINE.launch_spec(tiny_files, "fp32"), tmp_path / "log")
    asked = []

    class SeenError(Exception):
        pass

    def generate(*arguments: object, generation_config: object, **named: object) -> None:
        asked.append(generation_config)
        raise SeenError

    monkeypatch.setattr(session._model, "generate", generate)
    with pytest.raises(SeenError):
        session.run(make_requests(1), 1)
    (config,) = asked
    assert config.cache_implementation == "static"
    assert not config.disable_compile
    assert config.compile_config._compile_all_devices
    assert session.describe().arguments["compile"] is True


def test_nothing_is_compiled_unless_asked_for() -> None:
    config = fixed_length(3, None, compiled=False)
    assert config.disable_compile
    assert config.compile_config is None
