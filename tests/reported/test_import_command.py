"""`moe-cap import`: from files to rows of the store, or one line that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from moe_cap.cli import main
from tests.reported.reports import report
from tests.reported.test_tools import SGLANG_CLOSED, VLLM_CLOSED, VLLM_OPEN


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("QUEUE_REPO", "RESULTS_REPO", "HF_TOKEN", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOE_CAP_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def written(path: Path, body: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(body))
    return str(path)


def table(store: Path) -> pd.DataFrame:
    return pd.read_parquet(store / "snapshots" / "leaderboard.parquet")


def test_a_report_becomes_a_row_and_a_second_time_nothing_more(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "report.yaml", report())
    assert main(["import", path]) == 0
    assert main(["import", path, "--json"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out[out.index("{") :])
    (row,) = table(store).to_dict("records")
    assert (row["kind"], row["engine"], row["output_tokens_per_s"]) == ("reported", "MoE-Gen", 31.0)
    assert [result["id"] for result in told["results"]] == [row["result"]]
    assert told["store"] == str(store)


def test_files_of_tools_become_the_points_of_one_system(store: Path, tmp_path: Path) -> None:
    about = written(tmp_path / "about.yaml", report(points=None, engine={"name": "vLLM", "version": "0.32.0"}))
    assert main(["import", str(VLLM_CLOSED), str(VLLM_OPEN), "--about", about]) == 0
    rows = table(store)
    assert list(rows["load_kind"]) == ["closed_loop", "open_loop"]
    assert rows["result"].nunique() == 1
    assert rows["tpot_s_p50"].notna().all()
    assert set(rows["engine"]) == {"vLLM"}


def test_a_dry_run_stores_nothing(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", written(tmp_path / "report.yaml", report()), "--dry-run"]) == 0
    assert "nothing stored" in capsys.readouterr().out
    assert not store.exists()


def test_one_bad_file_stores_none_of_them(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = written(tmp_path / "good.yaml", report())
    bad = written(tmp_path / "bad.yaml", report(citation=None))
    assert main(["import", good, bad]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("bad.yaml: citation: Field required")
    assert not store.exists()


@pytest.mark.parametrize("arguments", [[str(SGLANG_CLOSED)], ["about.yaml", "--about", "about.yaml"], ["gone.yaml"]])
def test_what_does_not_go_together_is_refused(
    arguments: list[str], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "about.yaml", report())
    assert main(["import", *arguments]) == 2
    assert not store.exists()
