"""What is special about the Hub: its traps, its refusals, and what a request costs. Real client, double of the Hub."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from moe_cap.errors import (
    BusyError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    StoreAccessError,
    StoreError,
)
from moe_cap.queue import Queue
from moe_cap.results import ResultStore
from moe_cap.store import FolderStore, HubStore, hub_answers, open_store
from moe_cap.store.base import blob_id, read_many
from moe_cap.store.blobs import BlobCache
from tests.hub.app import Server
from tests.hub.fixtures import LARGE_FILE_WARNING, Remote

Stores = Callable[[], HubStore]
LOCKED = "Another commit operation is in progress for this repository. Please try again later."


def put(store: HubStore, path: str, data: bytes) -> str:
    return store.commit({path: data}, [], store.head(), f"put {path}")


def requests(hub: Server, part: str) -> int:
    return sum(part in seen.path for seen in hub.log)


@pytest.mark.parametrize(
    ("status", "headers", "error", "wait_s"),
    [
        (412, {}, ConflictError, None),
        (409, {}, BusyError, 1.0),
        (429, {"RateLimit": '"api";r=0;t=17'}, BusyError, 17.0),
        (429, {"Retry-After": "40"}, BusyError, 40.0),
        (429, {"RateLimit": '"api";r=5;t=17'}, BusyError, 60.0),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, BusyError, 60.0),
        (500, {}, OutcomeUnknownError, None),
        (502, {}, OutcomeUnknownError, None),
        (504, {}, OutcomeUnknownError, None),
        (408, {}, OutcomeUnknownError, None),
        (403, {}, StoreAccessError, None),
        (400, {}, StoreError, None),
    ],
)
def test_refused_commit_is_named(
    hub: Server, hub_stores: Stores, status: int, headers: dict[str, str], error: type[StoreError], wait_s: float | None
) -> None:
    store = hub_stores()
    parent = put(store, "x", b"1")
    hub.faults.add("POST", "/commit/", status, headers=headers, message=LOCKED)
    with pytest.raises(error) as refused:
        store.commit({"x": b"2"}, [], parent, "refused")
    assert type(refused.value) is error
    if wait_s is not None:
        assert isinstance(refused.value, BusyError)
        assert refused.value.wait_s == wait_s
    assert store.read("x", store.head()) == b"1"


def test_lost_answer_of_a_commit_is_unknown_and_the_commit_is_there(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    parent = put(store, "x", b"1")
    hub.faults.add("POST", "/commit/", 500, applied=True)
    with pytest.raises(OutcomeUnknownError):
        store.commit({"x": b"2"}, [], parent, "lost")
    assert store.read("x", store.head()) == b"2"


def test_commit_lock_of_the_repository_is_busy(hub: Server, hub_stores: Stores) -> None:
    stores = [hub_stores() for _ in range(2)]
    parent = put(stores[0], "x", b"1")
    repo = hub.hub.repos["dataset", stores[0].repo_id]
    repo.is_locked = True
    with pytest.raises(BusyError, match="Another commit operation"):
        stores[1].commit({"x": b"2"}, [], parent, "locked")
    repo.is_locked = False


@pytest.mark.parametrize(("status", "error"), [(401, StoreAccessError), (500, BusyError), (429, BusyError)])
def test_refused_look_at_the_head_is_named(
    hub: Server, hub_stores: Stores, status: int, error: type[StoreError]
) -> None:
    store = hub_stores()
    hub.faults.add("GET", "/revision/main", status)
    with pytest.raises(error):
        store.head()


PAGE = "<html>Down for maintenance</html>"


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, {}), (200, {"Content-Encoding": "gzip"}), (302, {"Location": "/api/datasets/x/y/revision/main"})],
    ids=["a page", "a damaged page", "redirects without end"],
)
def test_something_else_than_an_answer_is_a_busy_hub(
    hub: Server, hub_stores: Stores, status: int, headers: dict[str, str]
) -> None:
    store = hub_stores()
    hub.faults.add("GET", "/revision/main", status, headers=headers, page=PAGE, times=100)
    with pytest.raises(BusyError):
        store.head()


def test_listing_that_is_a_page_is_a_busy_hub(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    rev = put(store, "x", b"1")
    hub.faults.add("GET", "/tree/", 200, page=PAGE)
    with pytest.raises(BusyError):
        store.list("", rev)
    assert set(store.list("", rev)) == {"x"}


def test_commit_that_is_answered_by_a_page_is_unknown(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    parent = put(store, "x", b"1")
    hub.faults.add("POST", "/commit/", 200, page=PAGE, applied=True)
    with pytest.raises(OutcomeUnknownError):
        store.commit({"x": b"2"}, [], parent, "lost")
    assert store.read("x", store.head()) == b"2"


def test_silent_hub_is_busy_in_bounded_time(hub: Server, hub_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moe_cap.store.hub.CONNECT_TIMEOUT_S", 0.05)
    store = hub_stores()
    hub.faults.answer_s = 0.3
    with pytest.raises(BusyError, match="did not answer"):
        store.head()


def test_commit_without_an_answer_is_unknown(hub: Server, hub_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client itself would wait for ever here."""
    store = hub_stores()
    parent = put(store, "x", b"1")
    monkeypatch.setattr("moe_cap.store.hub.ANSWER_TIMEOUT_S", 0.2)
    hub.faults.commit_s = 0.6
    with pytest.raises(OutcomeUnknownError):
        store.commit({"x": b"2"}, [], parent, "no answer")
    while hub.hub.repos["dataset", store.repo_id].is_locked:
        time.sleep(0.02)


def test_hub_that_cannot_be_reached_is_busy(hub_client: None, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(BusyError):
            HubStore("lab/x", endpoint=endpoint, token="hf_x", cache_folder=tmp_path).head()


def test_offline_mode_is_named(hub: Server, hub_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StoreError, match="HF_HUB_OFFLINE"):
        hub_stores().head()


def test_trap_1_unchanged_content_on_a_stale_parent_is_a_conflict(hub: Server, hub_stores: Stores) -> None:
    """Two writers put the same bytes: the client would tell the second that it committed, on whatever head there is."""
    mine, other = hub_stores(), hub_stores()
    parent = put(mine, "x", b"1")
    other.commit({"x": b"2"}, [], parent, "first")
    with pytest.raises(ConflictError):
        mine.commit({"x": b"2"}, [], parent, "second, same bytes")


def test_trap_2_reading_at_a_commit_never_falls_back_to_an_older_one(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    old = put(store, "x", b"old")
    assert store.read("x", old) == b"old"
    new = put(store, "x", b"new")
    hub.faults.add("GET", "/resolve/", 403)
    with pytest.raises(StoreAccessError):
        store.read("x", new)
    assert store.read("x", new) == b"new"


def test_trap_3_head_never_falls_behind_our_own_commit(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    put(store, "x", b"1")
    rev = put(store, "x", b"2")
    hub.faults.stale_heads = 3
    assert [store.head() for _ in range(4)] == [rev] * 4
    assert put(store, "x", b"3") != rev


def test_head_follows_others_after_our_own_commit(hub: Server, hub_stores: Stores) -> None:
    mine, other = hub_stores(), hub_stores()
    put(mine, "x", b"1")
    theirs = put(other, "x", b"2")
    assert mine.head() == theirs
    hub.faults.stale_heads = 1
    assert mine.head() == theirs


def test_head_follows_a_squashed_history(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    old = put(store, "x", b"1")
    HfApi(endpoint=hub.url, token="hf_alice").super_squash_history(store.repo_id, repo_type="dataset")
    rev = store.head()
    assert rev != old
    assert store.read("x", rev) == b"1"
    with pytest.raises(ConflictError):
        hub_stores().list("", old)


def test_trap_4_ignored_file_is_refused_before_anything_is_removed(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    rev = put(store, "pending/x.json", b"1")
    api = HfApi(endpoint=hub.url, token="hf_alice")
    ignore = {"path_or_fileobj": b"running/\n", "path_in_repo": ".gitignore"}
    api.upload_file(**ignore, repo_id=store.repo_id, repo_type="dataset")
    rev = store.head()
    with pytest.raises(StoreError, match=r"\.gitignore .* would drop running/x\.json"):
        store.commit({"running/x.json": b"2"}, ["pending/x.json"], rev, "move")
    assert set(store.list("", store.head())) == {"pending/x.json"}


def test_reading_a_missing_repository_finds_it_empty_and_makes_none(
    hub: Server, remote: Remote, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = remote.new_name("typo")
    store = HubStore(name, token="hf_alice", endpoint=hub.url, cache_folder=tmp_path)
    queue, results = Queue(store), ResultStore(store)
    assert (queue.requests(), queue.claim("worker"), list(results.read_all())) == ([], None, [])
    with pytest.raises(NotFoundError):
        store.read("x", store.head())
    assert ("dataset", name) not in hub.hub.repos
    assert [record.getMessage() for record in caplog.records if name in record.getMessage()] == [
        f"there is no dataset {name} that this token may see: the first write creates it"
    ], "told once"
    assert requests(hub, "/whoami-v2") == 1, "the Hub limits it strictly"


def test_first_write_makes_the_repository(hub: Server, remote: Remote, tmp_path: Path) -> None:
    name = remote.new_name("made")
    store = HubStore(name, token="hf_alice", endpoint=hub.url, cache_folder=tmp_path)
    assert store.read("x", put(store, "x", b"1")) == b"1"
    assert ("dataset", name) in hub.hub.repos


def test_looking_whether_a_missing_repository_can_be_written_makes_none(
    hub: Server, remote: Remote, tmp_path: Path
) -> None:
    name = remote.new_name("asked")
    HubStore(name, token="hf_alice", endpoint=hub.url, cache_folder=tmp_path).check_writable()
    assert ("dataset", name) not in hub.hub.repos
    for repo_id, token in ((name, "hf_bob"), ("elsewhere/asked", "hf_alice")):
        with pytest.raises(StoreAccessError, match="Create it on"):
            HubStore(repo_id, token=token, endpoint=hub.url, cache_folder=tmp_path).check_writable()


def test_repository_that_is_gone_is_not_an_empty_one(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    put(store, "x", b"1")
    HfApi(endpoint=hub.url, token="hf_alice").delete_repo(store.repo_id, repo_type="dataset")
    with pytest.raises(StoreAccessError, match="is gone"):
        store.head()


def test_a_fine_grained_token_that_may_not_make_the_repository_is_told_at_the_first_write(
    hub: Server, tmp_path: Path
) -> None:
    hub.hub.add_user("carol", "hf_carol", role="fineGrained", orgs=["lab"])
    store = HubStore("lab/nowhere", token="hf_carol", endpoint=hub.url, cache_folder=tmp_path)
    assert store.list("", store.head()) == {}
    with pytest.raises(StoreAccessError, match="Create it on"):
        put(store, "x", b"1")


@pytest.mark.parametrize(
    ("token", "advice"),
    [("hf_bob", "Create it on .*/new-dataset"), (None, "Create it on"), ("hf_unknown", "Invalid credentials")],
)
def test_missing_repository_that_may_not_be_created_is_named(
    hub: Server, tmp_path: Path, token: str | None, advice: str
) -> None:
    store = HubStore("lab/nowhere", token=token, endpoint=hub.url, cache_folder=tmp_path)
    with pytest.raises(StoreAccessError, match=advice):
        store.head()
    assert ("dataset", "lab/nowhere") not in hub.hub.repos


def test_private_repository_of_others_is_named(hub: Server, hub_stores: Stores, tmp_path: Path) -> None:
    name = hub_stores().repo_id
    hub.hub.repos["dataset", name].private = True
    with pytest.raises(StoreAccessError):
        HubStore(name, token="hf_bob", endpoint=hub.url, cache_folder=tmp_path).head()


def test_reader_without_write_access_can_read_but_not_commit(hub: Server, hub_stores: Stores, tmp_path: Path) -> None:
    rev = put(hub_stores(), "x", b"1")
    reader = HubStore(hub_stores().repo_id, token="hf_bob", endpoint=hub.url, cache_folder=tmp_path / "bob")
    assert reader.read("x", reader.head()) == b"1"
    with pytest.raises(StoreAccessError, match="write access"):
        reader.commit({"x": b"2"}, [], rev, "not mine")


def test_content_is_fetched_once_and_shared_between_processes(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    files = {f"runs/{number}": str(number).encode() for number in range(20)}
    rev = store.commit(files, [], store.head(), "many")
    paths = sorted(store.list("", rev))
    assert dict(read_many(store, paths, rev)) == files
    hub.log.clear()
    other = hub_stores()
    rev = put(other, "runs/new", b"new")
    paths = sorted(other.list("", rev))
    assert len(dict(read_many(other, paths, rev))) == 21
    assert requests(hub, "/resolve/") == 1


def test_listing_of_a_revision_is_asked_once(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    rev = put(store, "pending/x", b"1")
    hub.log.clear()
    for prefix in ("", "pending/", ""):
        assert set(store.list(prefix, rev)) == {"pending/x"}
    assert requests(hub, "/tree/") == 1


def test_renewal_costs_one_commit_and_few_looks(hub: Server, hub_stores: Stores) -> None:
    store = hub_stores()
    put(store, "running/x", b"1")
    hub.log.clear()
    put(store, "running/x", b"2")
    assert [seen.method for seen in hub.log] == ["GET", "POST", "POST"]  # head, preupload, commit


def test_damaged_cache_is_fetched_again(hub: Server, hub_stores: Stores, tmp_path: Path) -> None:
    store = hub_stores()
    rev = put(store, "x", b"whole")
    store.list("", rev)
    assert store.read("x", rev) == b"whole"
    (cached,) = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    cached.write_bytes(b"who")
    assert store.read("x", rev) == b"whole"


@pytest.mark.filterwarnings(LARGE_FILE_WARNING)
def test_large_file_goes_by_its_sha256(hub: Server, hub_stores: Stores) -> None:
    store, table = hub_stores(), bytes(range(256)) * 100
    rev = store.commit({"snapshots/table.parquet": table, "small.json": b"{}"}, [], store.head(), "table")
    ids = store.list("", rev)
    assert len(ids["snapshots/table.parquet"]) == 64
    assert store.read("snapshots/table.parquet", rev) == table
    assert store.commit({"snapshots/table.parquet": table}, [], rev, "same") == rev


def test_blob_cache_gives_only_what_it_was_given(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path)
    assert cache.get(blob_id(b"x")) is None
    cache.put(blob_id(b"x"), b"x")
    assert cache.get(blob_id(b"x")) == b"x"


def test_spec_names_the_store(hub_client: None, tmp_path: Path) -> None:
    store = open_store("hub://lab/queue")
    assert isinstance(store, HubStore)
    assert (store.repo_id, store.heartbeat_s) == ("lab/queue", 600.0)
    assert isinstance(open_store(tmp_path), FolderStore)
    for name in ("queue", "lab/queue.git", "lab/a..b"):
        with pytest.raises(InvalidInputError, match=name):
            open_store(f"hub://{name}")


def test_waits_are_those_that_the_client_reads_from_the_headers() -> None:
    assert hub_answers._limited_for_s({"ratelimit": '"api";r=0;t=55', "retry-after": "3"}) == 55.0


def test_a_token_that_may_only_read_is_known_before_the_first_commit(
    hub: Server, hub_stores: Stores, tmp_path: Path
) -> None:
    name = hub_stores().repo_id
    with pytest.raises(StoreAccessError, match="write access"):
        HubStore(name, token="hf_bob", endpoint=hub.url, cache_folder=tmp_path).check_writable()
