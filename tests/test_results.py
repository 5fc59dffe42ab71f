"""Results are published once, read back as they were, and load as a dataset."""

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import datasets
import pandas as pd
import pytest

from moe_cap.errors import AlreadyPublishedError, InvalidInputError, NotFoundError, OutcomeUnknownError
from moe_cap.result import parse_result
from moe_cap.results import CARD, MANIFEST, TABLE, ResultStore, Table, read_card
from moe_cap.store import FolderStore, HubStore, MemoryStore, Store
from tests.hub.app import Server
from tests.hub.fixtures import LARGE_FILE_WARNING

ROOT = Path(__file__).resolve().parents[1]
ID, OTHER = "ab" * 12, "cd" * 12


def make_table(models: list[str]) -> bytes:
    buffer = BytesIO()
    pd.DataFrame({"model": models, "s_mbu": [0.416] * len(models)}).to_parquet(buffer, index=False)
    return buffer.getvalue()


class ResultsContract:
    @pytest.fixture
    def results(self, store: Store) -> ResultStore:
        return ResultStore(store, clock=lambda: 1_795_000_000.0, sleep=lambda _: None)

    def test_published_result_reads_back_as_it_was(self, results: ResultStore, store: Store) -> None:
        before = results.revision()
        results.publish(b'{"a": 1.25}', result_id=ID, year_month="2026-11")
        assert results.read(ID) == b'{"a": 1.25}'
        assert (results.ids(), results.has(ID), results.has(OTHER)) == ([ID], True, False)
        assert list(store.list("", store.head())) == [f"runs/2026-11/ab/{ID}.json"]
        assert results.revision() != before

    def test_mapping_is_stored_as_json(self, results: ResultStore) -> None:
        results.publish({"b": [1, None], "a": "é"}, result_id=ID, year_month="2026-11")
        assert json.loads(results.read(ID)) == {"a": "é", "b": [1, None]}
        with pytest.raises(InvalidInputError):
            results.publish({"a": float("nan")}, result_id=OTHER, year_month="2026-11")

    def test_same_content_again_changes_nothing(self, results: ResultStore) -> None:
        results.publish(b"1", result_id=ID, year_month="2026-11")
        rev = results.revision()
        results.publish(b"1", result_id=ID, year_month="2026-12")
        assert results.revision() == rev

    def test_other_content_under_the_same_id_is_refused(self, results: ResultStore) -> None:
        results.publish(b"1", result_id=ID, year_month="2026-11")
        for month in ("2026-11", "2026-12"):
            with pytest.raises(AlreadyPublishedError):
                results.publish(b"2", result_id=ID, year_month=month)
        assert results.read(ID) == b"1"

    @pytest.mark.parametrize(("result_id", "month"), [("../x", "2026-11"), ("ABCDEF00", "2026-11"), (ID, "2026-13")])
    def test_id_or_month_that_could_choose_a_path_is_refused(
        self, results: ResultStore, result_id: str, month: str
    ) -> None:
        with pytest.raises(InvalidInputError):
            results.publish(b"1", result_id=result_id, year_month=month)

    def test_missing_result_is_not_found(self, results: ResultStore) -> None:
        with pytest.raises(NotFoundError):
            results.read(ID)

    def test_all_are_read_and_foreign_files_are_not(self, results: ResultStore, store: Store) -> None:
        results.publish(b"2", result_id=OTHER, year_month="2026-12")
        results.publish(b"1", result_id=ID, year_month="2026-11")
        foreign = {"runs/2026-11/notes.txt": b"?", f"runs/2026-11/zz/{ID}.json": b"?", "README.md": b"?"}
        store.commit(foreign, [], store.head(), "by hand")
        assert list(results.read_all()) == [(ID, b"1"), (OTHER, b"2")]
        assert list(results.read_all()) == [(ID, b"1"), (OTHER, b"2")]

    @pytest.mark.filterwarnings(LARGE_FILE_WARNING)
    def test_snapshot_is_replaced_together_with_its_manifest(self, results: ResultStore, store: Store) -> None:
        for models in (["a"], ["a", "b"]):
            table = make_table(models)
            built: Table = table, {"rows": len(models)}
            results.write_snapshot(lambda _, built=built: built)
            rev = store.head()
            assert store.read(TABLE, rev) == table
            told = {"rows": len(models), "written_at": "2026-11-18T11:06:40+00:00"}
            assert json.loads(store.read(MANIFEST, rev)) == told
            assert store.read(CARD, rev) == read_card()
        results.write_snapshot(lambda _: built)
        assert store.head() == rev

    @pytest.mark.filterwarnings(LARGE_FILE_WARNING)
    def test_snapshot_leaves_the_readme_of_others_alone(self, results: ResultStore, store: Store) -> None:
        store.commit({CARD: b"mine"}, [], store.head(), "card")
        results.write_snapshot(lambda _: (make_table(["a"]), {}))
        assert store.read(CARD, store.head()) == b"mine"


class TestResultsInMemory(ResultsContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()

    def test_lost_answer_publishes_once(self) -> None:
        class Losing(MemoryStore):
            def commit(self, *args: object) -> str:
                super().commit(*args)  # type: ignore[arg-type]
                raise OutcomeUnknownError("500")

        store = Losing()
        ResultStore(store, sleep=lambda _: None).publish(b"1", result_id=ID, year_month="2026-11")
        assert store.head() == "r1"

    def test_content_seen_before_is_not_read_again(self) -> None:
        class Counting(MemoryStore):
            reads = 0

            def read(self, path: str, rev: str) -> bytes:
                self.reads += 1
                return super().read(path, rev)

        store = Counting()
        results = ResultStore(store)
        for number, result_id in enumerate((ID, OTHER), start=1):
            results.publish(str(number).encode(), result_id=result_id, year_month="2026-11")
            assert len(list(results.read_all())) == number
        assert store.reads == 2

    def test_table_that_became_stale_while_it_was_built_is_built_again(self) -> None:
        store = MemoryStore()
        slow, quick = (ResultStore(store, sleep=lambda _: None) for _ in range(2))
        seen: list[int] = []

        def build(records: Sequence[tuple[str, bytes]]) -> Table:
            if not seen:
                quick.publish(b"{}", result_id=ID, year_month="2026-11")
                quick.write_snapshot(lambda newest: (b"%d rows" % len(newest), {}))
            seen.append(len(records))
            return b"%d rows" % len(records), {}

        slow.write_snapshot(build)
        assert store.read(TABLE, store.head()) == b"1 rows"
        assert seen == [0, 1]


class TestResultsInFolder(ResultsContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return FolderStore(tmp_path / "results")

    def test_folder_loads_as_a_dataset_offline(
        self, results: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        results.publish(b"{}", result_id=ID, year_month="2026-11")
        results.write_snapshot(lambda _: (make_table(["Qwen/Qwen3-30B-A3B", "x"]), {}))
        folder, cache = tmp_path / "results", tmp_path / "cache"
        assert (folder / ".store").exists()
        loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
        assert loaded["model"] == ["Qwen/Qwen3-30B-A3B", "x"]
        assert loaded["s_mbu"] == [0.416, 0.416]

    def test_unreadable_result_does_not_hide_the_others(
        self, results: ResultStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results.publish(b"1", result_id=ID, year_month="2026-11")
        results.publish(b"2", result_id=OTHER, year_month="2026-11")
        real = Path.read_bytes

        def read(path: Path) -> bytes:
            if path.stem == ID:
                raise PermissionError(path)
            return real(path)

        monkeypatch.setattr(Path, "read_bytes", read)
        assert list(ResultStore(FolderStore(tmp_path / "results")).read_all()) == [(OTHER, b"2")]


class TestResultsOnHub(ResultsContract):
    @pytest.fixture
    def store(self, hub_stores: Callable[[], HubStore]) -> Store:
        return hub_stores()

    @pytest.mark.filterwarnings(LARGE_FILE_WARNING)
    def test_repository_loads_as_a_dataset(
        self, results: ResultStore, store: HubStore, hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        results.write_snapshot(lambda _: (make_table(["a", "b"]), {}))
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        loaded = datasets.load_dataset(store.repo_id, split="train", cache_dir=str(tmp_path), token="hf_alice")
        assert loaded["model"] == ["a", "b"]


def test_card_that_ships_is_the_one_that_new_stores_get() -> None:
    assert (ROOT / "eval-results" / "README.md").read_bytes() == read_card()


@pytest.mark.parametrize("path", sorted((ROOT / "eval-results" / "runs").rglob("*.json")), ids=lambda path: path.stem)
def test_a_published_record_keeps_its_bytes_when_it_is_read_and_written(path: Path) -> None:
    """Another blob of the same id would be refused by the store."""
    assert parse_result(path.read_bytes()).to_json() == path.read_bytes()
