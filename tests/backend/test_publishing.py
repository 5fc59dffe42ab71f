"""Results and the table beside them, as a folder that other tools read."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from backend.publishing import Publisher
from moe_cap.errors import ResultError
from moe_cap.quantity import known
from moe_cap.result import Result, parse_result
from moe_cap.results import ResultStore
from moe_cap.store import FolderStore
from tests.backend.fake_evaluation import publishable


def result(number: int) -> Result:
    asked = {"model": "lab/model", "schema_version": 1, "seed": number}
    return parse_result(json.dumps(publishable(asked, f"00000000-0000-0000-0000-{number:012d}")))


def test_published_result_is_there_for_who_knows_its_id(tmp_path: Path) -> None:
    publisher = Publisher(ResultStore(FolderStore(tmp_path)))
    one = result(1)
    assert not publisher.has(one.id)
    assert publisher.publish(one) == publisher.publish(one) == one.id
    assert publisher.has(one.id)


def test_a_record_that_nobody_could_read_back_is_not_written(tmp_path: Path) -> None:
    publisher, whole = Publisher(ResultStore(FolderStore(tmp_path))), result(1)
    both = known("requests_per_s", 1.0).model_copy(update={"reason": "it has none"})
    point = whole.points[0].model_copy(update={"quantities": {"requests_per_s": both}})
    with pytest.raises(ResultError, match="requests_per_s"):
        publisher.publish(whole.model_copy(update={"points": (point,)}))
    assert not publisher.has(whole.id)


def test_table_holds_every_readable_result_and_names_the_others(tmp_path: Path) -> None:
    store = ResultStore(FolderStore(tmp_path))
    publisher = Publisher(store)
    for number in range(3):
        publisher.publish(result(number))
        publisher.refresh_table()
    store.publish(b"{}", result_id="0123456789abcdef01234567", year_month="2026-01")
    publisher.refresh_table()
    publisher.publish(result(9))
    publisher.refresh_table()
    table = pd.read_parquet(tmp_path / "snapshots" / "leaderboard.parquet")
    manifest = json.loads((tmp_path / "snapshots" / "manifest.json").read_text())
    assert set(table["result"]) == {result(number).id for number in (0, 1, 2, 9)}
    assert (manifest["results"], manifest["left_out"]) == (4, ["0123456789abcdef01234567"])


def test_datasets_reads_the_results_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    publisher = Publisher(ResultStore(FolderStore(tmp_path / "results")))
    publisher.publish(result(1))
    publisher.refresh_table()
    loaded = datasets.load_dataset(str(tmp_path / "results"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["result"] == [result(1).id]
