"""The double and the real Hub agree on commits. Run by the real client; see docs/queue.md for the real Hub."""

import json
import threading
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError

from .fixtures import LARGE_FILE_WARNING, Remote

Repo = dict[str, Any]


def put(remote: Remote, repo: Repo, path: str, data: bytes, **more: Any) -> str:
    operations = [CommitOperationAdd(path, data)]
    return remote.api.create_commit(operations=operations, commit_message="test", **repo, **more).oid


def head(remote: Remote, repo: Repo) -> str:
    return remote.api.repo_info(**repo).sha or ""


def read(remote: Remote, repo: Repo, path: str) -> bytes:
    with open(remote.api.hf_hub_download(filename=path, revision=head(remote, repo), **repo), "rb") as file:  # noqa: PTH123
        return file.read()


def test_head_is_a_commit_id(remote: Remote, repo: Repo) -> None:
    assert len(head(remote, repo)) == 40


def test_upload_file_returns_its_commit(remote: Remote, repo: Repo) -> None:
    commit = remote.api.upload_file(path_or_fileobj=b"1", path_in_repo="upload.json", **repo)
    assert commit.oid == head(remote, repo)


def test_adds_and_deletes_land_together(remote: Remote, repo: Repo) -> None:
    put(remote, repo, "old.json", b"x")
    operations = [CommitOperationAdd(f"new/{i}.json", json.dumps(i).encode()) for i in range(3)]
    remote.api.create_commit(operations=[*operations, CommitOperationDelete("old.json")], commit_message="m", **repo)
    files = remote.api.list_repo_files(**repo)
    assert "old.json" not in files
    assert {"new/0.json", "new/1.json", "new/2.json"} <= set(files)


def test_commit_on_the_head_is_taken(remote: Remote, repo: Repo) -> None:
    put(remote, repo, "a.json", b"1", parent_commit=head(remote, repo))
    assert read(remote, repo, "a.json") == b"1"


def test_commit_on_an_old_parent_is_412(remote: Remote, repo: Repo) -> None:
    old = head(remote, repo)
    put(remote, repo, "b.json", b"first")
    with pytest.raises(HfHubHTTPError) as refused:
        put(remote, repo, "b.json", b"second", parent_commit=old)
    assert refused.value.response.status_code == 412
    assert read(remote, repo, "b.json") == b"first"


def test_race_of_eight_has_one_winner(remote: Remote, repo: Repo) -> None:
    for round_number in range(3):
        parent, outcomes = head(remote, repo), {}

        def claim(
            writer: int, parent: str = parent, outcomes: dict[int, int] = outcomes, turn: int = round_number
        ) -> None:
            try:
                put(remote, repo, "claim.json", f"{turn}-{writer}".encode(), parent_commit=parent)
                outcomes[writer] = 200
            except HfHubHTTPError as error:
                outcomes[writer] = error.response.status_code

        threads = [threading.Thread(target=claim, args=(writer,)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [writer for writer, status in outcomes.items() if status == 200]
        assert len(winners) == 1, outcomes
        assert set(outcomes.values()) <= {200, 409, 412}
        assert read(remote, repo, "claim.json") == f"{round_number}-{winners[0]}".encode()


def test_unchanged_content_is_not_committed_and_its_parent_not_checked(remote: Remote, repo: Repo) -> None:
    """Trap 1 of HubStore: if the client ever checks, the store's own check can go."""
    old = head(remote, repo)
    put(remote, repo, "same.json", b"same")
    newest = head(remote, repo)
    assert put(remote, repo, "same.json", b"same", parent_commit=old) == newest
    assert head(remote, repo) == newest


def test_ignored_content_is_dropped_without_an_error(remote: Remote, repo: Repo) -> None:
    """Trap 4 of HubStore."""
    put(remote, repo, ".gitignore", b"*.log\n")
    operations = [CommitOperationAdd(path, b"x") for path in ("kept.json", "dropped.log")]
    remote.api.create_commit(operations=operations, commit_message="m", **repo)
    files = remote.api.list_repo_files(**repo)
    assert "kept.json" in files
    assert "dropped.log" not in files
    remote.api.delete_file(".gitignore", **repo)


def test_deleting_what_is_not_there_is_refused(remote: Remote, repo: Repo) -> None:
    with pytest.raises(HfHubHTTPError) as refused:
        remote.api.create_commit(operations=[CommitOperationDelete("nothing")], commit_message="m", **repo)
    assert refused.value.response.status_code == 404


def test_copy_and_delete_move_a_file(remote: Remote, repo: Repo) -> None:
    put(remote, repo, "pending/x.json", b"x")
    operations = [CommitOperationCopy("pending/x.json", "running/x.json"), CommitOperationDelete("pending/x.json")]
    remote.api.create_commit(operations=operations, commit_message="move", **repo)
    files = remote.api.list_repo_files(**repo)
    assert "running/x.json" in files
    assert "pending/x.json" not in files


@pytest.mark.filterwarnings(LARGE_FILE_WARNING)
def test_large_files_round_trip(remote: Remote, repo: Repo) -> None:
    data = bytes(range(256)) * 4096
    put(remote, repo, "weights.bin", data)
    assert read(remote, repo, "weights.bin") == data
    (entry,) = remote.api.get_paths_info(paths=["weights.bin"], **repo)
    assert entry.lfs.size == len(data)


def test_commits_are_listed_newest_first(remote: Remote, repo: Repo) -> None:
    oid = put(remote, repo, "c.json", b"listed")
    listed = remote.api.list_repo_commits(**repo)
    assert listed[0].commit_id == oid
    assert listed[-1].title == "initial commit"


def test_pull_request_is_opened_read_and_merged(remote: Remote, repo: Repo) -> None:
    operations = [CommitOperationAdd("pr.json", b"1")]
    commit = remote.api.create_commit(operations=operations, commit_message="Propose", create_pr=True, **repo)
    assert remote.api.hf_hub_download(filename="pr.json", revision=commit.pr_revision, **repo)
    assert "pr.json" not in remote.api.list_repo_files(**repo)
    assert commit.pr_num in [discussion.num for discussion in remote.api.get_repo_discussions(**repo)]
    remote.api.merge_pull_request(discussion_num=commit.pr_num, **repo)
    assert "pr.json" in remote.api.list_repo_files(**repo)


def test_squashed_history_keeps_the_files(remote: Remote) -> None:
    name = remote.new_name("squash")
    remote.api.create_repo(name, repo_type="dataset")
    repo = {"repo_id": name, "repo_type": "dataset"}
    old = put(remote, repo, "kept.json", b"1")
    remote.api.super_squash_history(**repo)
    assert len(remote.api.list_repo_commits(**repo)) == 1
    assert read(remote, repo, "kept.json") == b"1"
    assert head(remote, repo) != old
    remote.api.delete_repo(**repo)


def test_upload_and_delete_a_folder(remote: Remote, repo: Repo, tmp_path: Any) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "f.json").write_text("{}")
    remote.api.upload_folder(folder_path=tmp_path, path_in_repo="up", **repo)
    assert "up/deep/f.json" in remote.api.list_repo_files(**repo)
    remote.api.delete_folder("up", **repo)
    assert "up/deep/f.json" not in remote.api.list_repo_files(**repo)


def test_run_as_future(remote: Remote, repo: Repo) -> None:
    future = remote.api.upload_file(path_or_fileobj=b"f", path_in_repo="future.txt", run_as_future=True, **repo)
    assert len(future.result(30).oid) == 40
