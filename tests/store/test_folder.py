"""What is special about a folder: people's hands in it, several processes, and a disk that can refuse."""

import fcntl
import os
import subprocess
import threading
from pathlib import Path

import pytest

from moe_cap.errors import BusyError, ConflictError, NotFoundError, OutcomeUnknownError, StoreError
from moe_cap.store import FolderStore
from moe_cap.store.base import blob_id
from moe_cap.store.journal import Journal
from moe_cap.store.tree import RACY_NS, FolderTree, revision_of


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def put(store: FolderStore, path: str, data: bytes) -> str:
    return store.commit({path: data}, [], store.head(), "put")


def test_looking_at_a_folder_that_is_not_there_does_not_make_it(store: FolderStore) -> None:
    assert store.list("", store.head()) == {}
    assert not store.root.exists()


def test_file_dropped_by_hand_is_picked_up(store: FolderStore) -> None:
    before = put(store, "pending/a", b"1")
    (store.root / "pending" / "b").write_bytes(b"by hand")
    rev = store.head()
    assert rev != before
    assert store.read("pending/b", rev) == b"by hand"
    with pytest.raises(ConflictError):
        store.commit({"c": b"1"}, [], before, "planned without knowing b")


def test_file_edited_in_place_is_picked_up_even_with_its_old_time(store: FolderStore) -> None:
    rev = put(store, "a", b"old")
    store.head()
    path = store.root / "a"
    stat = path.stat()
    with path.open("r+b") as file:
        file.write(b"new")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.read("a", store.head()) == b"new"
    with pytest.raises(ConflictError):
        store.read("a", rev)


def test_file_removed_by_hand_is_gone(store: FolderStore) -> None:
    rev = put(store, "a", b"1")
    (store.root / "a").unlink()
    with pytest.raises(ConflictError):
        store.read("a", rev)
    with pytest.raises(NotFoundError):
        store.read("a", store.head())


def test_git_and_the_store_name_content_alike(store: FolderStore) -> None:
    rev = put(store, "a.json", b'{"a": 1}')
    named = subprocess.run(["git", "hash-object", "a.json"], cwd=store.root, capture_output=True, text=True, check=True)
    assert store.list("", rev)["a.json"] == named.stdout.strip()


def test_equal_trees_have_equal_revisions_wherever_they_lie(tmp_path: Path) -> None:
    one, other = FolderStore(tmp_path / "one"), FolderStore(tmp_path / "other")
    put(one, "a", b"1")
    one_rev = put(one, "b/c", b"2")
    assert other.commit({"b/c": b"2", "a": b"1"}, [], other.head(), "both") == one_rev


def test_hidden_files_and_links_are_not_part_of_it(store: FolderStore, tmp_path: Path) -> None:
    put(store, "a", b"1")
    (tmp_path / "secret").write_text("s")
    (store.root / ".git").mkdir()
    (store.root / ".git" / "HEAD").write_text("x")
    (store.root / "link").symlink_to(tmp_path / "secret")
    (store.root / "loop").symlink_to(store.root)
    assert set(store.list("", store.head())) == {"a"}


def test_write_through_a_linked_folder_is_refused(store: FolderStore, tmp_path: Path) -> None:
    put(store, "a", b"1")
    (tmp_path / "elsewhere").mkdir()
    (store.root / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="in the way"):
        put(store, "out/b", b"1")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", ["a/b", "empty"])
def test_file_and_folder_of_one_name_are_refused_before_anything_is_written(store: FolderStore, path: str) -> None:
    rev = put(store, "a", b"1")
    (store.root / "empty").mkdir()
    with pytest.raises(StoreError, match="in the way"):
        store.commit({"ok": b"1", path: b"1"}, [], rev, "collide")
    assert store.head() == rev


def test_folder_that_became_empty_is_removed(store: FolderStore) -> None:
    rev = store.commit({"running/ab/x": b"1", "pending/y": b"2"}, [], store.head(), "two")
    store.commit({}, ["running/ab/x"], rev, "remove")
    assert not (store.root / "running").exists()
    assert (store.root / "pending").exists()


def test_the_store_keeps_itself_out_of_git(store: FolderStore) -> None:
    put(store, "a", b"1")
    subprocess.run(["git", "init", "-q"], cwd=store.root, check=True)
    asked = ["git", "status", "--porcelain", "--untracked-files=all"]
    status = subprocess.run(asked, cwd=store.root, capture_output=True, text=True, check=True)
    assert status.stdout.split() == ["??", "a"]


def test_lock_that_is_held_too_long_is_busy(store: FolderStore) -> None:
    put(store, "a", b"1")
    impatient = FolderStore(store.root, lock_timeout_s=0.0)
    with (store.root / ".store" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BusyError):
            impatient.head()
    assert impatient.head() == store.head()


def test_reading_needs_no_lock(store: FolderStore) -> None:
    rev = put(store, "a", b"1")
    with (store.root / ".store" / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert store.list("", rev).keys() == {"a"}
        assert store.read("a", rev) == b"1"


def test_folder_that_nobody_may_write_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    store = FolderStore(tmp_path)
    assert store.read("a", store.head()) == b"1"
    with pytest.raises(StoreError, match="cannot be written"):
        put(store, "b", b"1")


def test_full_disk_before_the_decision_writes_nothing(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rev = put(store, "a", b"1")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left") as failed:
            put(store, "a", b"2")
        assert not isinstance(failed.value, OutcomeUnknownError)
    assert store.head() == rev


def test_trouble_after_the_decision_is_told_and_made_up_for(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", b"1")
    real, calls = Path.replace, []

    def replace_once(path: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:  # the first puts the journal in its place
            raise OSError(28, "No space left on device")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_once)
        with pytest.raises(OutcomeUnknownError):
            store.commit({"b": b"2"}, ["a"], store.head(), "move")
    assert set(store.list("", store.head())) == {"b"}


def test_trouble_between_decision_and_its_flush_is_no_refusal(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "a", b"1")
    real, calls = os.fsync, []

    def fail_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:  # the first is the journal's own; then its folder
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_once)
        with pytest.raises(OutcomeUnknownError):
            put(store, "a", b"2")
    assert store.read("a", store.head()) == b"2"


def test_damaged_journal_is_named(store: FolderStore) -> None:
    put(store, "a", b"1")
    (store.root / ".store" / "journal.json").write_text("{")
    with pytest.raises(StoreError, match=r"journal\.json is damaged"):
        store.head()


def test_unreadable_file_does_not_hide_the_others(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a", b"1")
    put(store, "b", b"2")
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path.name == "b":
            raise PermissionError(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    fresh = FolderStore(store.root)
    rev = fresh.head()
    assert set(fresh.list("", rev)) == {"a", "b"}
    assert fresh.read("a", rev) == b"1"
    with pytest.raises(StoreError, match="may not be read"):
        fresh.read("b", rev)


def test_unchanged_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / name).write_text(name)
    later_ns = (tmp_path / "c").stat().st_ctime_ns + 2 * RACY_NS
    tree, reads, real = FolderTree(tmp_path, clock_ns=lambda: later_ns), [], Path.read_bytes

    def read(path: Path) -> bytes:
        reads.append(path.name)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert tree.scan() == tree.scan() == {name: blob_id(name.encode()) for name in "abc"}
    assert sorted(reads) == ["a", "b", "c"]


def test_edit_that_keeps_size_and_time_is_noticed(tmp_path: Path) -> None:
    """`cp -p` and `touch -d` set a file's time back; the kernel's own change time tells."""
    path = tmp_path / "a"
    path.write_text("old")
    before = path.stat()
    tree = FolderTree(tmp_path, clock_ns=lambda: before.st_ctime_ns + 2 * RACY_NS)
    tree.scan()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        with path.open("r+b") as file:
            file.write(b"new")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tree.scan() == {"a": blob_id(b"new")}


def test_file_changed_just_now_is_not_trusted_to_its_time_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the file system's clock leave the same size and times."""
    path = tmp_path / "a"
    path.write_text("1")
    now_ns = path.stat().st_ctime_ns
    tree = FolderTree(tmp_path, clock_ns=lambda: now_ns)
    tree.scan()
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"2")
    assert tree.scan() == {"a": blob_id(b"2")}


def test_revision_names_content_and_path() -> None:
    assert revision_of({"a": "1", "b": "2"}) == revision_of({"b": "2", "a": "1"})
    assert len({revision_of(files) for files in ({}, {"a": "1"}, {"a": "2"}, {"b": "1"})}) == 4


def test_journal_may_be_replayed_again(tmp_path: Path) -> None:
    (tmp_path / ".store").mkdir()
    (tmp_path / "old").write_text("x")
    journal = Journal(tmp_path)
    journal.record({"new": b"y"}, ["old"])
    text = (tmp_path / ".store" / "journal.json").read_bytes()
    for _ in range(2):
        (tmp_path / ".store" / "journal.json").write_bytes(text)
        journal.replay()
    assert {path.name for path in tmp_path.iterdir()} == {".store", "new"}


def test_threads_share_one_store(store: FolderStore) -> None:
    """Every one of 40 increments by 4 threads over one object counts."""

    def increment() -> None:
        for _ in range(10):
            while True:
                rev = store.head()
                try:
                    count = int(store.read("n", rev)) if "n" in store.list("", rev) else 0
                    store.commit({"n": str(count + 1).encode()}, [], rev, "count")
                    break
                except ConflictError:
                    continue

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("n", store.head()) == b"40"


def test_a_folder_that_cannot_be_written_is_known_before_the_first_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        FolderStore(tmp_path / "file" / "below").check_writable()
    monkeypatch.setattr("moe_cap.store.folder.os.access", lambda *_: False)
    with pytest.raises(StoreError, match="look at its permissions"):
        FolderStore(tmp_path / "kept").check_writable()


def test_a_folder_whose_last_commit_cannot_be_completed_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Journal) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Journal, "replay", full)
    with pytest.raises(StoreError, match="no space left"):
        FolderStore(tmp_path).check_writable()
