"""The Hub's part of the pre-flight, with the real client against a double of the Hub."""

from __future__ import annotations

import shutil
import warnings
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from moe_cap.errors import SubmissionError
from moe_cap.preflight import check
from moe_cap.preflight.model import find_on_hub
from moe_cap.settings import CHECKOUT, read_settings
from moe_cap.submission import Submission
from tests.hub.app import Server

SHIPPED = CHECKOUT / "assets" / "cap-tiny-moe"


@pytest.fixture(scope="module")
def published(hub_server: Server) -> str:
    api = HfApi(hub_server.url, token="hf_alice")
    api.create_repo("lab/small-moe", repo_type="model", exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        api.upload_file(path_or_fileobj=SHIPPED / name, path_in_repo=name, repo_id="lab/small-moe")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the client warns about its own upload
        for path in ("model.safetensors", "consolidated.safetensors", "original/model.safetensors"):
            api.upload_file(path_or_fileobj=b"weights" * 100, path_in_repo=path, repo_id="lab/small-moe")
    return "lab/small-moe"


def test_published_model_is_found_with_config_and_size_of_the_weights_that_are_loaded(
    hub: Server, published: str
) -> None:
    found = find_on_hub(Submission(model=published), endpoint=hub.url)
    assert found.config["model_type"] == "qwen3_moe"
    assert found.weight_file_bytes == 700
    assert found.warning is None


def test_model_that_the_hub_does_not_have(hub: Server) -> None:
    with pytest.raises(SubmissionError, match="no public model lab/nothing") as caught:
        find_on_hub(Submission(model="lab/nothing"), endpoint=hub.url)
    assert caught.value.field == "model"


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-30B-A3B.git", "lab/model--v2", "lab/a..b", "lab/model-", "lab/" + "m" * 97, "lab/modèle"]
)
def test_name_that_the_hub_cannot_have(hub: Server, tmp_path: Path, name: str) -> None:
    find = partial(find_on_hub, endpoint=hub.url)
    found = check(Submission(model=name), read_settings({"MOE_CAP_HOME": str(tmp_path)}), on_hub=find)
    (problem,) = found.problems
    assert problem.field == "model"
    assert name in problem.message


def test_page_in_place_of_an_answer_is_a_hub_that_cannot_be_reached(hub: Server, published: str) -> None:
    hub.faults.add("GET", "/api/models/", 200, page="<html>Maintenance</html>")
    with pytest.raises(SubmissionError, match="the Hub cannot be reached"):
        find_on_hub(Submission(model=published), endpoint=hub.url)


def test_revision_that_the_model_does_not_have(hub: Server, published: str) -> None:
    with pytest.raises(SubmissionError, match="no revision v9") as caught:
        find_on_hub(Submission(model=published, revision="v9"), endpoint=hub.url)
    assert caught.value.field == "revision"


def test_private_model_is_not_there_for_who_has_no_token(hub: Server, published: str) -> None:
    HfApi(hub.url, token="hf_alice").create_repo("lab/secret", repo_type="model", private=True, exist_ok=True)
    with pytest.raises(SubmissionError, match="no public model lab/secret"):
        find_on_hub(Submission(model="lab/secret"), endpoint=hub.url)


def test_repository_without_weights_is_no_model(hub: Server, tmp_path: Path) -> None:
    api = HfApi(hub.url, token="hf_alice")
    api.create_repo("lab/no-weights", repo_type="model", exist_ok=True)
    shutil.copy(SHIPPED / "config.json", tmp_path)
    api.upload_file(path_or_fileobj=tmp_path / "config.json", path_in_repo="config.json", repo_id="lab/no-weights")
    with pytest.raises(SubmissionError, match=r"no \.safetensors weights"):
        find_on_hub(Submission(model="lab/no-weights"), endpoint=hub.url)
