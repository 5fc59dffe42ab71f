import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.measure.tiny_models import write_model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-MoE of three layers with its tokenizer; not to be changed."""
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_files(tiny_folder: Path) -> ModelFiles:
    return find_model(Submission(model=str(tiny_folder)))


@pytest.fixture
def copied_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """The same model, free to be broken."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def quick_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with local state in which the machine has been probed already."""
    from moe_cap.measure import probe

    home = tmp_path / "home"
    monkeypatch.setattr(probe, "SMALLEST_COPY_BYTES", 2**20)
    monkeypatch.setattr(probe, "CPU_SIDE", 128)
    monkeypatch.setattr(probe, "_last_level_cache_bytes", lambda: 0)
    yield home


def read_json(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text()))
