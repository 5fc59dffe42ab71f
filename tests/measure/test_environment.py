"""What a record says of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moe_cap.measure.environment import describe_environment


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed checkout with one file of code and one published record."""
    for name in ("src/code.py", "eval-results/record.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("first")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for command in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_results_that_a_worker_publishes_do_not_change_the_code(checkout: Path) -> None:
    (checkout / "eval-results/record.json").write_text("second")
    (checkout / "eval-results/another.json").write_text("third")
    assert describe_environment(checkout, {})["code_changed"] is False


@pytest.mark.parametrize("name", ["src/code.py", "src/new.py"])
def test_changed_and_new_code_is_told(checkout: Path, name: str) -> None:
    (checkout / name).write_text("second")
    assert describe_environment(checkout, {})["code_changed"] is True


def test_outside_a_repository_nothing_is_said_of_the_code(tmp_path: Path) -> None:
    told = describe_environment(tmp_path, {})
    assert (told["code_commit"], told["code_changed"]) == (None, None)


def test_only_variables_that_decide_are_recorded(tmp_path: Path) -> None:
    told = describe_environment(tmp_path, {"OMP_NUM_THREADS": "2", "HF_TOKEN": "secret"})
    assert told["variables"] == {"OMP_NUM_THREADS": "2"}
