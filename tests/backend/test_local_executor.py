"""Every way in which an evaluation's process can end, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.executors.base import Failed, Job, Succeeded
from backend.executors.local import LocalEvaluation, LocalExecutor, evaluate_command, forget_old_runs, scrub
from moe_cap.settings import read_settings
from moe_cap.submission import Submission
from tests.backend.conftest import FAKE, is_alive, outcome_of, read_pid, wait_for

Start = Callable[[str], LocalEvaluation]


def test_result_of_a_good_run_is_read(start: Start) -> None:
    outcome = outcome_of(start("ok"))
    assert isinstance(outcome, Succeeded)
    assert outcome.result.run_uuid == "run-0"


@pytest.mark.parametrize(
    ("kind", "words", "retry"),
    [
        ("crash", "exit code 1; its last words: engine: assertion failed in kernel 7", True),
        ("segfault", "crashed with SIGSEGV", True),
        ("killed", "probably for lack of memory", True),
        ("memory", "1.0 GiB are not enough", False),
        ("refused", "model_type 'x' has no reader", False),
        ("garbage", "does not hold together", False),
    ],
)
def test_ending_gets_a_reason_and_a_verdict_on_another_attempt(
    start: Start, kind: str, words: str, retry: bool
) -> None:
    outcome = outcome_of(start(kind))
    assert isinstance(outcome, Failed)
    assert words in outcome.reason
    assert outcome.retry is retry


def test_progress_shows_stage_and_the_log_as_a_terminal_would(start: Start) -> None:
    evaluation = start("polite")
    progress = wait_for(lambda: p if (p := evaluation.progress()).stage == "timing" else None)
    assert (progress.fraction, progress.eta_s, progress.log_tail) == (0.25, 12.0, ("loaded",))


def test_half_written_progress_is_no_error(start: Start, tmp_path: Path) -> None:
    evaluation = start("polite")
    wait_for(lambda: evaluation.progress().stage == "timing")
    (tmp_path / "runs" / "polite" / "progress.json").write_text('{"stage": "tim')
    assert evaluation.progress().stage == "running"


def test_stop_lets_the_evaluation_put_its_engine_away(start: Start, tmp_path: Path) -> None:
    evaluation = start("polite")
    wait_for(lambda: evaluation.progress().stage == "timing")
    time.sleep(0.05)  # the handler is set right after the progress
    evaluation.stop()
    assert (tmp_path / "runs" / "polite" / "left.json").exists()


def test_stop_ends_servers_that_left_the_process_group_and_ignore_sigterm(start: Start, tmp_path: Path) -> None:
    evaluation = start("hang")
    server = read_pid(tmp_path / "runs" / "hang" / "server.pid")
    evaluation.stop()
    assert not is_alive(server)
    assert not is_alive(read_pid(tmp_path / "runs" / "hang" / "evaluation.pid"))


def test_server_that_a_finished_evaluation_forgot_is_ended(start: Start, tmp_path: Path) -> None:
    assert isinstance(outcome_of(start("stray")), Succeeded)
    assert not is_alive(read_pid(tmp_path / "runs" / "stray" / "server.pid"))


def test_evaluation_runs_in_a_session_of_its_own(start: Start, tmp_path: Path) -> None:
    evaluation = start("polite")
    pid = read_pid(tmp_path / "runs" / "polite" / "evaluation.pid")
    assert os.getsid(pid) == evaluation.pid != os.getsid(0)
    assert os.getpgid(pid) != os.getpgid(0)


def test_evaluation_dies_with_a_guard_that_is_killed(start: Start, tmp_path: Path) -> None:
    evaluation = start("polite")
    pid = read_pid(tmp_path / "runs" / "polite" / "evaluation.pid")
    os.kill(evaluation.pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    outcome = outcome_of(evaluation)
    assert isinstance(outcome, Failed)
    assert outcome.retry


OWNER = """
import os, sys, time
from pathlib import Path
from backend.executors.base import Job
from backend.executors.local import LocalExecutor
from moe_cap.submission import Submission
folder = Path(sys.argv[1])
command = [sys.executable, sys.argv[2], str(folder / "request.json"), "--output", str(folder),
           "--progress", str(folder / "progress.json"), "--run-uuid", "r"]
job = Job(Submission(model="fake/hang"), "r", folder)
LocalExecutor(os.environ, command=lambda job: command, grace_s=0.2).start(job)
time.sleep(120)
"""


def test_nothing_of_an_evaluation_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "hang"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder), str(FAKE)])
    try:
        left = [read_pid(folder / "server.pid"), read_pid(folder / "evaluation.pid")]
    finally:
        owner.kill()
        owner.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in left))


def test_secrets_do_not_reach_the_evaluation() -> None:
    environ = {
        "HF_TOKEN": "t", "HUGGING_FACE_HUB_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "t", "DB_PASSWORD": "t",
        "GH_PAT": "t", "AZURE_STORAGE_KEY": "t", "DATABASE_URL": "t", "MOE_CAP_API_KEY": "t", "NPM_CONFIG__AUTH": "t",
        "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin",
    }  # fmt: skip
    kept = scrub(environ, model_token=None)
    assert "t" not in kept.values()
    assert kept.items() >= {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "0", "PATH": "/bin"}.items()
    assert scrub(environ, model_token="read")["HF_TOKEN"] == "read"  # the one that gated models need


def test_token_for_gated_models_is_among_the_settings_of_the_evaluation() -> None:
    worker = read_settings({"HF_TOKEN": "write", "MOE_CAP_MODEL_TOKEN": "read", "PATH": "/bin"})
    given = scrub({"HF_TOKEN": "write", "MOE_CAP_MODEL_TOKEN": "read"}, model_token=worker.model_token)
    assert read_settings(given).model_token == "read"
    assert "write" not in given.values()


def test_only_the_newest_ended_runs_are_kept(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        if number != 0:
            (folder / "ending.json").write_text("{}")
            os.utime(folder / "ending.json", (number, number))
    forget_old_runs(tmp_path, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-0", "run-3"]  # 0 still runs


def test_default_command_is_the_one_that_a_person_would_type(tmp_path: Path) -> None:
    command = evaluate_command(Job(Submission(model="a/b"), "run", tmp_path))
    assert command[1:5] == ["-m", "moe_cap.cli", "evaluate", str(tmp_path / "request.json")]


def test_command_that_cannot_be_started_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    executor = LocalExecutor(os.environ, command=lambda _job: [str(tmp_path / "nothing-here")], grace_s=0.2)
    outcome = outcome_of(executor.start(Job(Submission(model="a/b"), "run", tmp_path / "run")))
    assert isinstance(outcome, Failed)
    assert "nothing-here" in outcome.reason
