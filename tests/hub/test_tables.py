"""pandas and datasets read from and write to the double as they do with the real Hub."""

import io
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from .fixtures import LARGE_FILE_WARNING, Remote

Repo = dict[str, Any]
pytestmark = pytest.mark.filterwarnings(LARGE_FILE_WARNING)


@pytest.fixture(autouse=True)
def endpoint(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = f"{remote.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", remote.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", remote.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


def upload_table(remote: Remote, repo: Repo, path: str) -> None:
    table = io.BytesIO()
    pd.DataFrame({"model": ["a", "b"], "accuracy": [0.1, 0.2]}).to_parquet(table)
    remote.api.upload_file(path_or_fileobj=table.getvalue(), path_in_repo=path, **repo)


def test_pandas_reads_parquet_by_its_hub_address(remote: Remote, repo: Repo) -> None:
    upload_table(remote, repo, "data/train-00000.parquet")
    options = {"endpoint": remote.endpoint, "token": remote.token}
    table = pd.read_parquet(f"hf://datasets/{repo['repo_id']}/data/train-00000.parquet", storage_options=options)
    assert table["model"].tolist() == ["a", "b"]


def test_datasets_loads_parquet_of_a_repository(remote: Remote, repo: Repo) -> None:
    upload_table(remote, repo, "data/train-00000.parquet")
    loaded = datasets.load_dataset(repo["repo_id"], data_files="data/*.parquet", split="train", token=remote.token)
    assert loaded["model"] == ["a", "b"]


def test_datasets_pushes_and_loads_back(remote: Remote) -> None:
    name = remote.new_name("pushed")
    datasets.Dataset.from_dict({"a": [1, 2, 3]}).push_to_hub(name, token=remote.token)
    assert datasets.load_dataset(name, token=remote.token, split="train")["a"] == [1, 2, 3]
    remote.api.delete_repo(name, repo_type="dataset")
