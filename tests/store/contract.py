"""What every store promises. A store joins by naming its `open_again` fixture; see test_contract.py."""

import threading
from collections.abc import Callable

import pytest

from moe_cap.errors import BusyError, ConflictError, InvalidInputError, NotFoundError
from moe_cap.store import Store
from moe_cap.store.base import blob_id, read_many

Open = Callable[[], Store]


def put(store: Store, path: str, data: bytes) -> str:
    return store.commit({path: data}, [], store.head(), f"put {path}")


def race_for(stores: list[Store], parent: str, name: str) -> list[bytes]:
    """Let all stores write their claim on `parent` at the same time; return the claims that were taken."""
    won: list[bytes] = []
    start = threading.Barrier(len(stores))

    def claim(store: Store, data: bytes) -> None:
        start.wait()
        for _ in range(200):
            try:
                store.commit({"claim": data}, [], parent, name)
                won.append(data)
            except ConflictError:
                return
            except BusyError:
                continue
            return

    claims = [(store, f"{name} {number}".encode()) for number, store in enumerate(stores)]
    threads = [threading.Thread(target=claim, args=args) for args in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


class StoreContract:
    """`open_again()` opens the same empty store once more, as another process would."""

    def test_new_store_is_empty(self, open_again: Open) -> None:
        store = open_again()
        assert store.list("", store.head()) == {}

    def test_looking_whether_it_can_be_written_changes_nothing(self, open_again: Open) -> None:
        store = open_again()
        before = store.head()
        store.check_writable()
        assert open_again().head() == before
        assert store.list("", before) == {}

    def test_committed_files_are_listed_and_read(self, open_again: Open) -> None:
        store = open_again()
        rev = store.commit({"a/b/x.json": b"1", "y.json": b"2"}, [], store.head(), "two files")
        assert store.list("", rev) == {"a/b/x.json": blob_id(b"1"), "y.json": blob_id(b"2")}
        assert store.read("a/b/x.json", rev) == b"1"
        assert store.head() == rev

    def test_other_process_sees_a_commit_at_once(self, open_again: Open) -> None:
        mine, other = open_again(), open_again()
        before = other.head()
        rev = put(mine, "x.json", b"1")
        assert other.head() == rev != before
        assert other.read("x.json", rev) == b"1"

    def test_listing_takes_a_folder(self, open_again: Open) -> None:
        store = open_again()
        rev = store.commit({"pending/a": b"1", "pending/b/c": b"2", "pendingish": b"3"}, [], store.head(), "files")
        assert set(store.list("pending/", rev)) == {"pending/a", "pending/b/c"}
        assert store.list("nothing/", rev) == {}
        with pytest.raises(InvalidInputError):
            store.list("pending", rev)

    def test_equal_content_has_equal_ids_and_other_content_another(self, open_again: Open) -> None:
        store = open_again()
        rev = store.commit({"a": b"same", "b": b"same", "c": b"other"}, [], store.head(), "files")
        ids = store.list("", rev)
        assert ids["a"] == ids["b"] != ids["c"]

    def test_move_is_one_step(self, open_again: Open) -> None:
        store = open_again()
        rev = put(store, "pending/x", b"1")
        moved = store.commit({"running/x": b"2"}, ["pending/x"], rev, "move")
        assert set(store.list("", moved)) == {"running/x"}

    def test_stale_parent_writes_nothing(self, open_again: Open) -> None:
        mine, other = open_again(), open_again()
        parent = put(mine, "x", b"1")
        rev = put(other, "x", b"2")
        with pytest.raises(ConflictError):
            mine.commit({"x": b"3", "y": b"3"}, [], parent, "too late")
        assert mine.read("x", rev) == b"2"
        assert set(mine.list("", mine.head())) == {"x"}

    def test_stale_parent_is_refused_even_if_nothing_would_change(self, open_again: Open) -> None:
        mine, other = open_again(), open_again()
        parent = put(mine, "x", b"1")
        put(other, "y", b"2")
        with pytest.raises(ConflictError):
            mine.commit({"x": b"1"}, [], parent, "same content")

    def test_unchanged_content_may_be_committed(self, open_again: Open) -> None:
        store = open_again()
        rev = put(store, "x", b"1")
        again = store.commit({"x": b"1"}, [], rev, "same content")
        assert store.read("x", again) == b"1"
        assert store.head() == again

    def test_missing_file_is_not_found(self, open_again: Open) -> None:
        store = open_again()
        rev = put(store, "x", b"1")
        with pytest.raises(NotFoundError):
            store.read("y", rev)

    def test_removing_what_is_not_there_writes_nothing(self, open_again: Open) -> None:
        store = open_again()
        rev = put(store, "x", b"1")
        with pytest.raises(NotFoundError):
            store.commit({"z": b"1"}, ["y"], rev, "remove")
        assert store.head() == rev

    def test_an_old_revision_reads_old_content_or_none(self, open_again: Open) -> None:
        store = open_again()
        old = put(store, "x", b"old")
        put(store, "x", b"new")
        try:
            assert store.read("x", old) == b"old"
        except ConflictError:
            return

    def test_unknown_revision_is_a_conflict(self, open_again: Open) -> None:
        store = open_again()
        put(store, "x", b"1")
        with pytest.raises(ConflictError):
            store.list("", "0" * 40)

    @pytest.mark.parametrize("path", ["", "/x", "a//b", "../x", "a/../x", ".hidden", "a/.git/x", "a\\b", "x/"])
    def test_path_that_leaves_the_tree_is_refused(self, open_again: Open, path: str) -> None:
        store = open_again()
        with pytest.raises(InvalidInputError):
            store.commit({path: b"1"}, [], store.head(), "bad")

    def test_ambiguous_or_empty_change_is_refused(self, open_again: Open) -> None:
        store = open_again()
        rev = put(store, "x", b"1")
        for puts, deletes in (({}, []), ({"x": b"2"}, ["x"]), ({}, ["x", "x"]), ({"a": b"1", "a/b": b"1"}, [])):
            with pytest.raises(InvalidInputError):
                store.commit(puts, deletes, rev, "bad")

    def test_many_files_are_read_in_order(self, open_again: Open) -> None:
        store = open_again()
        files = {f"many/{number:03d}": str(number).encode() for number in range(40)}
        rev = store.commit(files, [], store.head(), "many")
        assert list(read_many(store, sorted(files), rev)) == sorted(files.items())

    def test_bytes_come_back_as_they_were(self, open_again: Open) -> None:
        store, data = open_again(), bytes(range(256)) * 64
        assert store.read("x", put(store, "x", data)) == data

    def test_race_of_eight_threads_has_one_winner(self, open_again: Open) -> None:
        shared = open_again()
        stores = [shared if number % 2 else open_again() for number in range(8)]
        for turn in range(3):
            won = race_for(stores, shared.head(), f"turn {turn}")
            assert len(won) == 1
            assert shared.read("claim", shared.head()) == won[0]
