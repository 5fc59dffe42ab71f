"""What becomes of a profile's results in the store: only what is valid, and a store that is away ends nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_cap.errors import BusyError, StoreError
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer
from moe_cap.results import ResultStore
from moe_cap.store import FolderStore
from tests.measure.profile.conftest import Profile

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

Serve = Callable[[Behaviour], MockServer]


def asked(folder: Path) -> tuple[str, ...]:
    """Three cells of the fake engine."""
    path = folder.parent / "profile.yaml"
    body = {"model_id": str(folder), "engine": "fake", "precision": "bf16", "num_requests": 2}
    path.write_text(yaml.safe_dump(body | {"target_input_tokens": [8, 9, 10], "target_output_tokens": 4}))
    return "--config", str(path), "--publish"


def ids(profile: Profile) -> set[str]:
    return set(ResultStore(FolderStore(profile.store)).ids())


def refusing(monkeypatch: pytest.MonkeyPatch, times: int, error: StoreError) -> None:
    """Let the first `times` publications fail."""
    publish, tried = ResultStore.publish, []

    def at_first_not(self: ResultStore, *arguments: Any, **named: Any) -> None:
        tried.append(arguments)
        if len(tried) <= times:
            raise error
        publish(self, *arguments, **named)

    monkeypatch.setattr(ResultStore, "publish", at_first_not)


def test_a_result_with_an_invalid_point_is_kept_and_not_published(serve: Serve, words: str, profile: Profile) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.002, fault=Fault.DIE, fault_after=1, fault_every=40))
    shape = ("--input-tokens", "24", "--output-tokens", "6", "--num-requests", "60", "--concurrency", "4")
    arguments = ("--api-url", server.url, "--model", words, *shape, "--publish")
    document = profile.json(*arguments, code=1)
    (cell,) = document["cells"]
    assert "requests failed" in cell["invalid"]
    assert document["published"] == []
    assert [each["result_id"] for each in document["unpublished"]] == [cell["result_id"]]
    assert "not published: invalid: " in profile.err
    assert not list(profile.store.rglob("*.json"))
    assert len(profile.results()) == 1
    assert profile.json(*arguments, code=1)["published"] == [], "kept ones neither"


def test_a_store_that_cannot_be_written_is_found_before_anything_is_measured(
    profile: Profile, copied_folder: Path
) -> None:
    profile.store.write_text("no folder")
    assert "cannot be written" in profile.fails(*asked(copied_folder), code=1)
    assert not list(profile.output.glob("*/cell.json"))


def test_a_store_that_is_away_for_a_moment_gets_everything_in_the_end(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, 1, BusyError("the Hub did not answer", wait_s=1))
    document = profile.json(*asked(copied_folder))
    assert "not published yet: the Hub did not answer" in profile.err
    assert [cell["state"] for cell in document["cells"]] == ["measured"] * 3
    assert document["unpublished"] == []
    assert set(document["published"]) == ids(profile) == {result.id for result in profile.results()}


def test_what_a_store_never_took_is_named_and_published_by_the_same_command(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refusing(patch, 99, StoreError("the disk is full"))
        document = profile.json(*asked(copied_folder), code=1)
    assert [each["reason"] for each in document["unpublished"]] == ["the disk is full"] * 3
    assert {Path(file).name for file in document["files"]} == {"table.csv", "plots.html"}
    assert "3 of 3 results not published; the same command publishes what it kept" in profile.err
    again = profile.json(*asked(copied_folder))
    assert [cell["state"] for cell in again["cells"]] == ["kept"] * 3
    assert set(again["published"]) == ids(profile) == {result.id for result in profile.results()}


def test_a_table_that_could_not_be_renewed_is_told(
    profile: Profile, copied_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "write_snapshot", full)
        assert len(profile.json(*asked(copied_folder), code=1)["published"]) == 3
    assert "table is out of date, the same command renews it: the disk is full" in profile.err
    profile.json(*asked(copied_folder))
    manifest = json.loads((profile.store / "snapshots" / "manifest.json").read_text())
    assert manifest["results"] == 3
