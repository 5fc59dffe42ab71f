"""The double and the real Hub agree on repositories, their references, and who may do what."""

import threading
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitScheduler, EvalResult, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from .fixtures import Remote

Repo = dict[str, Any]


def status_of(call: Any, *args: Any, **kwargs: Any) -> int:
    with pytest.raises(HfHubHTTPError) as refused:
        call(*args, **kwargs)
    return refused.value.response.status_code


def test_whoami(remote: Remote) -> None:
    assert remote.api.whoami()["auth"]["accessToken"]["role"] in {"write", "fineGrained"}


def test_creating_twice_is_409_unless_that_is_fine(remote: Remote, repo: Repo) -> None:
    assert status_of(remote.api.create_repo, **repo) == 409
    remote.api.create_repo(exist_ok=True, **repo)


def test_branches_and_tags(remote: Remote, repo: Repo) -> None:
    remote.api.create_branch(branch="dev", **repo)
    remote.api.create_tag(tag="v1", **repo)
    refs = remote.api.list_repo_refs(**repo)
    assert {branch.name for branch in refs.branches} == {"main", "dev"}
    assert [tag.name for tag in refs.tags] == ["v1"]
    remote.api.delete_branch(branch="dev", **repo)
    remote.api.delete_tag(tag="v1", **repo)
    assert [branch.name for branch in remote.api.list_repo_refs(**repo).branches] == ["main"]


def test_private_repository_is_invisible_to_others(remote: Remote, tmp_path: Path) -> None:
    name = remote.new_name("private")
    remote.api.create_repo(name, repo_type="dataset", private=True)
    remote.api.upload_file(path_or_fileobj=b"s", path_in_repo="s.txt", repo_id=name, repo_type="dataset")
    for number, token in enumerate((False, remote.other_token)):
        stranger = HfApi(endpoint=remote.endpoint, token=token)
        with pytest.raises(RepositoryNotFoundError):
            stranger.hf_hub_download(name, "s.txt", repo_type="dataset", cache_dir=tmp_path / str(number))
    assert remote.api.hf_hub_download(name, "s.txt", repo_type="dataset", cache_dir=tmp_path)
    remote.api.delete_repo(name, repo_type="dataset")


def test_stranger_may_not_commit(remote: Remote, repo: Repo) -> None:
    stranger = HfApi(endpoint=remote.endpoint, token=remote.other_token)
    assert status_of(stranger.upload_file, path_or_fileobj=b"z", path_in_repo="z.txt", **repo) in {401, 403}


def test_unknown_token_is_401(remote: Remote) -> None:
    assert status_of(HfApi(endpoint=remote.endpoint, token="hf_unknown").whoami) == 401


def test_moved_repository_is_found_under_both_names(remote: Remote) -> None:
    old, new = remote.new_name("moved"), remote.new_name("moved")
    remote.api.create_repo(old, repo_type="dataset")
    remote.api.move_repo(old, new, repo_type="dataset")
    assert remote.api.repo_info(old, repo_type="dataset").id == new
    remote.api.delete_repo(new, repo_type="dataset")
    assert not remote.api.repo_exists(new, repo_type="dataset")


def test_readme_is_validated_and_stored(remote: Remote, repo: Repo) -> None:
    card = b"---\nlicense: mit\n---\n# x\n"
    remote.api.upload_file(path_or_fileobj=card, path_in_repo="README.md", **repo)
    assert Path(remote.api.hf_hub_download(filename="README.md", **repo)).read_bytes() == card


def test_model_card_keeps_evaluation_results(remote: Remote) -> None:
    name = remote.new_name("model")
    remote.api.create_repo(name)
    card = ModelCard("---\nlicense: mit\n---\n# m\n")
    card.data.model_name = "m"
    task = {"task_type": "text-generation", "dataset_type": "openai/gsm8k", "dataset_name": "GSM8K"}
    card.data.eval_results = [EvalResult(**task, metric_type="acc", metric_value=0.5)]
    remote.api.upload_file(path_or_fileobj=str(card).encode(), path_in_repo="README.md", repo_id=name)
    stored = ModelCard(Path(remote.api.hf_hub_download(name, "README.md")).read_text())
    assert stored.data.eval_results[0].metric_value == 0.5
    remote.api.delete_repo(name)


def test_scheduler_pushes_what_was_appended(remote: Remote, repo: Repo, tmp_path: Path) -> None:
    where = {"folder_path": tmp_path, "path_in_repo": "sched", "every": 10, "hf_api": remote.api}
    threads = set(threading.enumerate())
    scheduler = CommitScheduler(repo_id=repo["repo_id"], repo_type="dataset", **where)
    with scheduler.lock:
        (tmp_path / "log.jsonl").write_text("{}\n")
    scheduler.trigger().result(30)
    scheduler.stop()
    assert "sched/log.jsonl" in remote.api.list_repo_files(**repo)
    assert all(thread.daemon for thread in set(threading.enumerate()) - threads)
