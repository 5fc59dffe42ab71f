"""The whole walk on the shipped model: a request, a worker, a result, a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_cap.queue import Queue, State
from moe_cap.result import parse_result
from moe_cap.results import ResultStore
from moe_cap.settings import CHECKOUT
from moe_cap.store import FolderStore
from moe_cap.submission import Submission

pytestmark = pytest.mark.model


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    places = {f"MOE_CAP_{name}": str(tmp_path / name.lower()) for name in ("QUEUE", "RESULTS", "HOME")}
    return os.environ | places | {"HF_HUB_OFFLINE": "1", "HF_TOKEN": "hf_secret_of_the_worker"}


def work_once(site: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "moe_cap.cli", "worker", "--once", "--json"]
    return subprocess.run(command, env=site, capture_output=True, text=True, check=False, timeout=280)


def test_request_for_the_shipped_model_becomes_a_published_result(site: dict[str, str]) -> None:
    submission = Submission(
        model=str(CHECKOUT / "assets" / "cap-tiny-moe"), precision="fp32", tasks=("cap_arithmetic",), concurrency=(2,),
        input_tokens=16, output_tokens=4, num_requests=2, accuracy_limit=8,
    )  # fmt: skip
    queue = Queue(FolderStore(site["MOE_CAP_QUEUE"]))
    queue.submit(submission.model_dump(mode="json"), request_id=submission.id)
    worked = work_once(site)
    assert worked.returncode == 0, worked.stderr
    request = queue.get(submission.id)
    assert request.state is State.FINISHED
    assert json.loads(worked.stdout)["result_ids"] == list(request.result_ids)
    record = ResultStore(FolderStore(site["MOE_CAP_RESULTS"])).read(request.result_ids[0])
    result = parse_result(record)
    assert result.submission == submission
    assert result.accuracy[0].num_samples == 8
    assert b"hf_secret_of_the_worker" not in record
    (row,) = pd.read_parquet(Path(site["MOE_CAP_RESULTS"]) / "snapshots" / "leaderboard.parquet").to_dict("records")
    assert row["result"] == result.id
    assert row["output_tokens_per_s"] > 0


def test_model_that_cannot_be_measured_fails_once_with_its_reason(site: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "from_tomorrow"}')
    submission = Submission(model=str(tmp_path / "model"))
    queue = Queue(FolderStore(site["MOE_CAP_QUEUE"]))
    queue.submit(submission.model_dump(mode="json"), request_id=submission.id)
    assert work_once(site).returncode == 1
    request = queue.get(submission.id)
    assert (request.state, request.attempts) == (State.FAILED, 1)
    assert "safetensors" in str(request.reason)
