"""Whole worker processes, killed and stopped in the middle of an evaluation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.embedded import EmbeddedWorker
from moe_cap.queue import Outcome, Queue, Request, State
from moe_cap.settings import CHECKOUT
from moe_cap.submission import Submission
from tests.backend.conftest import QuickStore, is_alive, read_pid, wait_for

Launch = Callable[[str], subprocess.Popen[bytes]]


class Site:
    """What the worker processes share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.queue = Queue(QuickStore(root / "queue"), lease_s=1.5)

    def submit(self, kind: str) -> str:
        submission = Submission(model=f"fake/{kind}")
        return self.queue.submit(submission.model_dump(mode="json"), request_id=submission.id).id

    def until(self, request_id: str, state: State) -> Request:
        return wait_for(lambda: r if (r := self.queue.get(request_id)).state is state else None)

    def pids_of_first_run(self) -> list[int]:
        (folder,) = wait_for(lambda: [path.parent for path in self.root.glob("runs/*/server.pid")])
        return [read_pid(folder / "server.pid"), read_pid(folder / "evaluation.pid")]

    def starts(self) -> int:
        return len((self.root / "runs" / "STARTS").read_text().splitlines())

    def results(self) -> list[str]:
        return [path.name for path in self.root.glob("results/*")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    processes: list[subprocess.Popen[bytes]] = []

    def launch(how: str) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen([sys.executable, "-m", "tests.backend.fake_worker", str(tmp_path), how]))
        return processes[-1]

    yield launch
    for process in processes:
        process.kill()
        process.wait()


def test_request_of_a_killed_worker_is_evaluated_again_exactly_once(site: Site, launch: Launch) -> None:
    request_id = site.submit("hangs-once")
    first = launch("serve")
    left = site.pids_of_first_run()
    first.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, left)))
    launch("serve")
    launch("serve")
    request = site.until(request_id, State.FINISHED)
    assert [attempt.outcome for attempt in request.history] == [Outcome.EXPIRED, Outcome.FINISHED]
    assert site.starts() == 2
    assert site.results() == list(request.result_ids)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_worker_that_is_told_to_stop_gives_its_request_back(site: Site, launch: Launch, how: signal.Signals) -> None:
    request_id = site.submit("hangs-once")
    worker = launch("serve")
    left = site.pids_of_first_run()
    worker.send_signal(how)
    assert worker.wait(20) == 0
    request = site.queue.get(request_id)
    assert (request.state, request.attempts) == (State.PENDING, 0)
    assert not any(map(is_alive, left))


def test_once_evaluates_one_request_and_leaves(site: Site, launch: Launch) -> None:
    ids = [site.submit("ok"), site.submit("flaky")]
    assert launch("once").wait(30) == 0
    assert [site.queue.get(request_id).state for request_id in ids] == [State.FINISHED, State.PENDING]


def test_once_with_an_empty_queue_leaves_at_once(site: Site, launch: Launch) -> None:
    assert launch("once").wait(30) == 0


def test_embedded_worker_is_started_again_after_a_kill_and_gives_back_when_stopped(site: Site) -> None:
    request_id = site.submit("hangs-once")
    command = (sys.executable, "-m", "tests.backend.fake_worker", str(site.root), "serve")
    embedded = EmbeddedWorker({}, site.root / "home", command=command, restart_s=0.1, grace_s=5.0)
    embedded.start()
    left = site.pids_of_first_run()
    worker = wait_for(lambda: r.lease if (r := site.queue.get(request_id)).lease else None).worker
    os.kill(int(worker.removeprefix("process-")), signal.SIGKILL)
    request = site.until(request_id, State.FINISHED)
    assert [attempt.outcome for attempt in request.history] == [Outcome.EXPIRED, Outcome.FINISHED]
    assert not any(map(is_alive, left))
    assert embedded.is_running
    embedded.stop()
    assert not embedded.is_running


PAGE = """
import sys, time
from pathlib import Path
from backend.embedded import EmbeddedWorker
command = (sys.executable, "-m", "tests.backend.fake_worker", sys.argv[1], "serve")
EmbeddedWorker({}, Path(sys.argv[1]) / "home", command=command, grace_s=5.0).start()
time.sleep(120)
"""


def test_embedded_worker_gives_back_and_ends_when_its_page_is_killed(site: Site) -> None:
    request_id = site.submit("hangs-once")
    page = subprocess.Popen([sys.executable, "-c", PAGE, str(site.root)])
    try:
        left = site.pids_of_first_run()
        worker = wait_for(lambda: r.lease if (r := site.queue.get(request_id)).lease else None).worker
    finally:
        page.kill()
        page.wait()
    wait_for(lambda: not any(map(is_alive, [*left, int(worker.removeprefix("process-"))])))
    request = site.queue.get(request_id)
    assert (request.state, request.attempts) == (State.PENDING, 0)


def test_embedded_worker_imports_what_its_page_does_where_no_package_is_installed(tmp_path: Path) -> None:
    told = "import os, moe_cap, backend; print(os.environ['PYTHONPATH'])"
    command = (sys.executable, "-S", "-P", "-c", told)  # -S: the packages of this environment are not there
    embedded = EmbeddedWorker({"PYTHONPATH": "/kept"}, tmp_path, command=command, restart_s=60.0)
    embedded.start()
    wait_for(lambda: not embedded.is_running)
    embedded.stop()
    *_, folders = embedded.log.read_text().splitlines()
    assert folders.split(os.pathsep) == [str(CHECKOUT / "src"), str(CHECKOUT), "/kept"]
