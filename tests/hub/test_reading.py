"""The double and the real Hub agree on listing, downloading and refusing."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

from .fixtures import Remote

Repo = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def files(remote: Remote, repo: Repo) -> None:
    paths = {"x.json": b"2", **{f"pending/{i}.json": str(i).encode() for i in range(3)}}
    operations = [CommitOperationAdd(path, data) for path, data in paths.items()]
    remote.api.create_commit(operations=operations, commit_message="files", **repo)


def test_tree_lists_files_with_their_git_ids(remote: Remote, repo: Repo) -> None:
    entries = {entry.path: entry for entry in remote.api.list_repo_tree(recursive=True, **repo)}
    assert entries["x.json"].blob_id == "d8263ee9860594d2806b0dfd1bfd17528b0ba2a4"  # printf 2 | git hash-object --stdin
    assert entries["x.json"].size == 1


def test_tree_of_a_folder(remote: Remote, repo: Repo) -> None:
    assert len(list(remote.api.list_repo_tree(path_in_repo="pending", **repo))) == 3


def test_tree_tells_the_last_commit_when_expanded(remote: Remote, repo: Repo) -> None:
    entries = list(remote.api.list_repo_tree(path_in_repo="pending", expand=True, **repo))
    assert entries[0].last_commit.title == "files"


def test_tree_of_a_missing_folder(remote: Remote, repo: Repo) -> None:
    with pytest.raises(EntryNotFoundError):
        list(remote.api.list_repo_tree(path_in_repo="nope", **repo))


def test_long_trees_come_in_pages(remote: Remote, repo: Repo) -> None:
    operations = [CommitOperationAdd(f"many/{i:05d}.json", str(i).encode()) for i in range(1200)]
    remote.api.create_commit(operations=operations, commit_message="many", **repo)
    assert len(list(remote.api.list_repo_tree(path_in_repo="many", **repo))) == 1200


def test_paths_info_and_file_exists(remote: Remote, repo: Repo) -> None:
    assert [entry.path for entry in remote.api.get_paths_info(paths=["x.json", "nope"], **repo)] == ["x.json"]
    assert remote.api.file_exists(filename="x.json", **repo)
    assert not remote.api.file_exists(filename="nope", **repo)


def test_download_twice_gives_the_cached_file(remote: Remote, repo: Repo) -> None:
    first = remote.api.hf_hub_download(filename="x.json", **repo)
    assert remote.api.hf_hub_download(filename="x.json", **repo) == first
    assert Path(first).read_bytes() == b"2"


def test_download_at_a_commit(remote: Remote, repo: Repo) -> None:
    sha = remote.api.repo_info(**repo).sha
    assert sha in remote.api.hf_hub_download(filename="x.json", revision=sha, **repo)


def test_download_of_a_missing_file(remote: Remote, repo: Repo) -> None:
    with pytest.raises(EntryNotFoundError):
        remote.api.hf_hub_download(filename="nope", **repo)


def test_download_at_an_unknown_revision(remote: Remote, repo: Repo) -> None:
    with pytest.raises(RevisionNotFoundError):
        remote.api.hf_hub_download(filename="x.json", revision="nobranch", **repo)


def test_snapshot_of_some_files_follows_changes(remote: Remote, repo: Repo, tmp_path: Path) -> None:
    wanted = {"local_dir": tmp_path, "allow_patterns": "pending/*"}
    remote.api.snapshot_download(**wanted, **repo)
    assert {path.name for path in (tmp_path / "pending").iterdir()} == {"0.json", "1.json", "2.json"}
    remote.api.upload_file(path_or_fileobj=b"new", path_in_repo="pending/0.json", **repo)
    remote.api.snapshot_download(**wanted, **repo)
    assert (tmp_path / "pending" / "0.json").read_bytes() == b"new"


def test_file_system_reads_and_writes(remote: Remote, repo: Repo) -> None:
    files, root = HfFileSystem(endpoint=remote.endpoint, token=remote.token), f"datasets/{repo['repo_id']}"
    with files.open(f"{root}/fs/a.txt", "w") as file:
        file.write("hello")
    files.invalidate_cache()
    assert files.glob(f"{root}/fs/*.txt") == [f"{root}/fs/a.txt"]
    assert files.read_text(f"{root}/fs/a.txt") == "hello"
    files.rm(f"{root}/fs/a.txt")
    files.invalidate_cache()
    assert not files.exists(f"{root}/fs/a.txt")
