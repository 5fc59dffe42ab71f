"""Whether a server that ended did so for lack of memory: neither another one's, nor a log's good advice, says that."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from moe_cap.errors import EngineCrashedError, MeasurementError, OutOfMemoryError
from moe_cap.measure import guard
from moe_cap.measure.engines.server import Server, ran_out_of_memory
from tests.measure.test_server import odd


@pytest.mark.parametrize(
    ("said", "lack"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 GiB\n" + "shutting down\n" * 40, True),
        ("(EngineCore pid=2) ERROR 11-22 22:46:42 [core.py:9] ValueError: No available memory for the cache blocks", 1),
        ("cudaMalloc failed: out of memory\nunable to allocate CUDA0 buffer\n", True),
        ("INFO: lower --gpu-memory-utilization if you run out of memory\nKeyError: 'lm_head'\n", False),
        ("hint: set PYTORCH_ALLOC_CONF against out of memory errors\nSegmentation fault\n", False),
        ("retried, was out of memory\n" + "serving\n" * 40 + "AssertionError: no such block\n", False),
    ],
)
def test_lack_of_memory_is_an_exception_or_among_the_last_words_and_no_advice(said: str, lack: bool) -> None:
    assert ran_out_of_memory(said) == lack


@pytest.mark.parametrize(
    ("status", "oom_kills", "said", "error"),
    [
        (-9, 1, "", OutOfMemoryError),
        (-9, 0, "", EngineCrashedError),
        (1, 1, "KeyError: 'lm_head'", EngineCrashedError),
        (1, 1, "worker 3 died with exit code -9", OutOfMemoryError),
    ],
)
def test_the_kernel_took_this_server_only_where_one_of_its_processes_was_killed(
    tmp_path: Path, status: int, oom_kills: int, said: str, error: type[MeasurementError]
) -> None:
    log = tmp_path / "engine.log"
    server = Server("odd", odd("slow"), tmp_path, log, os.environ)
    server.stop()
    ending = {"status": status, "asked_to_stop": False, "oom_kills": oom_kills, "max_rss_bytes": 0}
    log.with_suffix(".ending.json").write_text(json.dumps(ending))
    log.write_text(said)
    assert type(server.explain_ending(EngineCrashedError, "died")) is error


@pytest.mark.parametrize(
    ("group", "counters", "expected"),
    [
        ("0::/box\n", {"box/memory.events": "low 0\noom 4\noom_kill 3\n"}, 3),
        ("0::/outside/box\n", {"memory.events": "oom_kill 2\n"}, 2),
        ("4:memory:/box\n0::/\n", {"memory/box/memory.oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        ("0::/\n", {}, 9),
    ],
)
def test_kills_for_memory_are_counted_in_the_own_control_group_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, counters: dict[str, str], expected: int
) -> None:
    told = {"proc/self/cgroup": group, "proc/vmstat": "nr_free 1\noom_kill 9\n"}
    told |= {f"groups/{name}": text for name, text in counters.items()}
    for name, text in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(guard, "PROC", tmp_path / "proc")
    monkeypatch.setattr(guard, "CGROUPS", tmp_path / "groups")
    assert guard.count_oom_kills() == expected
