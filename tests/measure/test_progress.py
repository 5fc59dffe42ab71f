import json
from pathlib import Path

import pytest

from moe_cap.measure.progress import Progress, by_percent


def read(path: Path) -> tuple[str, float | None, float | None]:
    body = json.loads(path.read_text())
    return body["stage"], body["fraction"], body["eta_s"]


def test_fraction_and_eta_follow_the_planned_weights(tmp_path: Path) -> None:
    path, now = tmp_path / "progress.json", [0.0]
    progress = Progress(path, lambda: now[0])
    progress.plan({"loading": 1.0, "timing": 3.0})
    progress.enter("loading")
    assert read(path) == ("loading", 0.0, None)
    now[0] = 5.0
    progress.enter("timing")
    assert read(path) == ("timing", 0.25, 15.0)
    now[0] = 10.0
    progress.within(1 / 3)
    assert read(path) == ("timing", 0.5, 10.0)
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_plan_nothing_is_promised(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    Progress(path, lambda: 0.0).enter("loading")
    assert read(path) == ("loading", None, None)


def test_no_file_is_no_error() -> None:
    progress = Progress(None, lambda: 0.0)
    progress.enter("loading")
    progress.within(0.5)


def test_a_load_of_many_requests_is_told_by_the_percent() -> None:
    told: list[float] = []
    tell = by_percent(told.append)
    for done in range(1, 10_001):
        tell(done / 10_000)
    assert len(told) <= 101
    assert (told[0], told[-1]) == (pytest.approx(0.01), 1.0)
