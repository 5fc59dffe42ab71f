"""A commit to a folder is whole or absent, whatever kills the writer in the middle."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("experiment", ["every_step", "random_times"])
def test_killed_writer_leaves_all_or_nothing(experiment: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.store.crash_lab", experiment, str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
