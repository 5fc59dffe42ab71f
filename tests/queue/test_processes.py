"""Real worker processes, one of them killed while it holds a request."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moe_cap.queue import Outcome, Queue, State
from tests.hub.app import Server
from tests.hub.fixtures import Remote

from . import worker_process

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["folder", "hub"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "queue")
    server: Server = request.getfixturevalue("hub")
    remote: Remote = request.getfixturevalue("remote")
    return f"{server.url} {remote.new_name('processes')} {tmp_path / 'blobs'}"


def start(where: str, name: str, act: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DOUBLE_TOKEN": "hf_alice", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "tests.queue.worker_process", where, name, act]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_worker_loses_nothing_and_its_request_runs_once_more(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOUBLE_TOKEN", "hf_alice")
    queue = Queue(worker_process.open_at(where), lease_s=worker_process.LEASE_S)
    for number in range(12):
        queue.submit({"number": number}, request_id=f"request-{number:02d}")
    doomed = start(where, "doomed", "hold")
    assert doomed.stdout is not None
    with doomed.stdout:
        orphan = doomed.stdout.readline().strip()
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    assert queue.get(orphan).state is State.RUNNING

    workers = [start(where, f"worker-{number}", "work") for number in range(3)]
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    requests = queue.requests()
    assert [request.state for request in requests] == [State.FINISHED] * 12
    assert {request.id: request.attempts for request in requests if request.attempts > 1} == {orphan: 2}
    seen = queue.get(orphan)
    assert [attempt.outcome for attempt in seen.history] == [Outcome.EXPIRED, Outcome.FINISHED]
    assert seen.result_ids == (f"{orphan}-2",)
