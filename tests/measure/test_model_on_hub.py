"""What is fetched of a model on the Hub, and in which order, with the real client against a double."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants

from moe_cap.errors import EngineStartError, MoECapError, OutOfMemoryError, SubmissionError, UnknownModelTypeError
from moe_cap.hardware import detect_machine
from moe_cap.measure import model_files
from moe_cap.measure.model_files import find_model
from moe_cap.settings import CHECKOUT
from moe_cap.submission import Submission
from tests.hub.app import Server
from tests.hub.fixtures import LARGE_FILE_WARNING

pytestmark = pytest.mark.filterwarnings(LARGE_FILE_WARNING)
SHIPPED = CHECKOUT / "assets" / "cap-tiny-moe"
EMPTY = struct.pack("<Q", 2) + b"{}"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(autouse=True)
def client(hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = {"standardEnvVars": [], "harnesses": {}}  # what the client asks a Hub for once, and our double has not
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._registry", nobody)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def publish(hub: Server, name: str, **config: object) -> Submission:
    """A model in two shards, with other forms of the same weights beside it."""
    api = HfApi(hub.url, token="hf_alice")
    api.create_repo(f"lab/{name}", repo_type="model", exist_ok=True)
    described = json.loads((SHIPPED / "config.json").read_text()) | config
    files = {
        "config.json": json.dumps(described).encode(),
        "tokenizer.json": (SHIPPED / "tokenizer.json").read_bytes(),
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode(),
        **dict.fromkeys((*SHARDS, "consolidated.safetensors", "original/model.safetensors", "onnx/config.json"), EMPTY),
    }
    for path, data in files.items():
        api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=f"lab/{name}")
    return Submission(model=f"lab/{name}")


def fetched(tmp_path: Path) -> set[str]:
    snapshots = (tmp_path / "cache").glob("models--*/snapshots/*")
    return {path.relative_to(each).as_posix() for each in snapshots for path in each.rglob("*") if not path.is_dir()}


def refused(asked: Submission, error: type[MoECapError], match: str) -> None:
    with pytest.raises(error, match=match):
        find_model(asked)


def test_only_the_weights_that_the_index_names_are_fetched(hub: Server, tmp_path: Path) -> None:
    files = find_model(publish(hub, "sharded"))
    assert [path.name for path in files.weights] == list(SHARDS)
    assert fetched(tmp_path) == {"config.json", "tokenizer.json", "model.safetensors.index.json", *SHARDS}


def test_name_that_the_hub_cannot_have_is_refused() -> None:
    refused(Submission(model="lab/a..b"), SubmissionError, "lab/a..b")


def test_weights_of_a_family_that_nobody_reads_are_not_fetched(hub: Server, tmp_path: Path) -> None:
    refused(publish(hub, "unread", model_type="nope"), UnknownModelTypeError, "nope")
    assert not {name for name in fetched(tmp_path) if name.endswith(".safetensors")}


def test_weights_for_which_the_disk_is_too_small_are_not_fetched(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = publish(hub, "large")
    with monkeypatch.context() as patch:
        small = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=2 * len(EMPTY) - 1))
        patch.setattr(model_files, "shutil", small)
        refused(asked, EngineStartError, "the disk has")
    assert not fetched(tmp_path) & set(SHARDS)


def test_weights_that_no_memory_of_this_machine_holds_are_not_fetched(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = publish(hub, "larger")
    tiny = replace(detect_machine(), dram_bytes=2 * len(EMPTY) - 1, devices=())
    monkeypatch.setattr(model_files, "detect_machine", lambda: tiny)
    refused(asked, OutOfMemoryError, "of memory")
    assert not fetched(tmp_path) & set(SHARDS)
