import json
from pathlib import Path

import pytest

from moe_cap.errors import SubmissionError
from moe_cap.measure.model_files import find_model
from moe_cap.submission import Submission


def find(folder: Path):
    return find_model(Submission(model=str(folder)))


def refused(folder: Path, match: str) -> None:
    with pytest.raises(SubmissionError, match=match) as error:
        find(folder)
    assert error.value.field == "model"


def test_a_folder_is_named_by_what_it_holds(copied_folder: Path, tiny_folder: Path) -> None:
    original, copy = find(tiny_folder), find(copied_folder)
    assert copy.revision == original.revision
    assert len(copy.revision) == 64
    config = json.loads((copied_folder / "config.json").read_text())
    (copied_folder / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert find(copied_folder).revision != original.revision


def test_one_changed_weight_is_another_revision(copied_folder: Path, tiny_folder: Path) -> None:
    path = copied_folder / "model.safetensors"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    assert find(copied_folder).revision != find(tiny_folder).revision


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no folder")


def test_no_config(copied_folder: Path) -> None:
    (copied_folder / "config.json").unlink()
    refused(copied_folder, "no config.json")


def test_a_config_that_is_not_json(copied_folder: Path) -> None:
    (copied_folder / "config.json").write_text("{")
    refused(copied_folder, "not JSON")


def test_pickled_weights_are_no_weights(copied_folder: Path) -> None:
    (copied_folder / "model.safetensors").rename(copied_folder / "pytorch_model.bin")
    refused(copied_folder, "pickles are not loaded")


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_weights_that_are_cut_off(copied_folder: Path, kept: int) -> None:
    path = copied_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(copied_folder, "cut off")


def test_a_missing_shard_is_named(copied_folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copied_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(copied_folder, "lacks model-00002-of-00002.safetensors")


def test_an_index_cannot_name_files_outside_the_folder(copied_folder: Path) -> None:
    index = {"weight_map": {"a": "../../model.safetensors"}}
    (copied_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert find(copied_folder).weights == (copied_folder / "model.safetensors",)
