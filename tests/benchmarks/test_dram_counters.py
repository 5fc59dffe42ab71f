"""Nsight Compute's log. The fixture was written by hand in the documented format; no GPU wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dram_counters import (
    CounterError,
    CounterPermissionError,
    MissingMetricError,
    NcuNotInstalledError,
    PassCounters,
    UnreadableCountersError,
    find_ncu,
    ncu_command,
    parse_ncu_csv,
    replays,
)
from benchmarks.dram_probe import probe_counters

BY_HAND = (Path(__file__).parent / "fixtures" / "ncu-by-hand.csv").read_text(encoding="utf-8")


def test_the_kernels_behind_each_mark_are_one_pass_and_the_mark_is_in_none() -> None:
    assert parse_ncu_csv(BY_HAND, 2) == (
        PassCounters(kernels=2, read_bytes=36_864 + 537_001_984, written_bytes=1_024 + 65_536),
        PassCounters(kernels=1, read_bytes=1.5e9, written_bytes=2e3),
    )


PERMISSION = "==ERROR== ERR_NVGPUCTRPERM - The user does not have permission to access GPU Performance Counters\n"
FAILURES: dict[str, tuple[str, type[CounterError], str]] = {
    "permission": (PERMISSION, CounterPermissionError, "run as root"),
    "metric": ("==ERROR== Failed to find metric dram__bytes_read.sum\n", MissingMetricError, "dram__bytes_read.sum"),
    "no value": (BY_HAND.replace('"36,864"', '"n/a"'), MissingMetricError, "rms_norm_kernel.*'n/a'"),
    "one metric": (
        "\n".join(line for line in BY_HAND.splitlines() if '"2"' not in line[:4] or "write" not in line),
        MissingMetricError, "1 of 2 kernels of a pass have no dram__bytes_write.sum",
    ),
    "driver": ("==ERROR== Failed to initialize the profiler: LibraryNotLoaded\n", UnreadableCountersError, "Library"),
    "nothing": ("==WARNING== No kernels were profiled.\n", UnreadableCountersError, "No kernels were profiled"),
    "empty": ("", UnreadableCountersError, "no table"),
    "unit": (BY_HAND.replace('"Kbyte"', '"sector"'), UnreadableCountersError, "'sector'"),
    "columns": (BY_HAND.replace('"Metric Unit"', '"Unit"'), UnreadableCountersError, "no table"),
    "no mark": (BY_HAND.replace("spin_kernel", "fill_kernel"), UnreadableCountersError, "before the first mark"),
    "cut off": (BY_HAND[:-40], UnreadableCountersError, "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
def test_every_failure_has_a_name_and_says_what_to_do(failure: str) -> None:
    text, kind, says = FAILURES[failure]
    with pytest.raises(kind, match=says):
        parse_ncu_csv(text, 2)


def test_a_pass_that_was_not_counted_is_no_pass() -> None:
    with pytest.raises(UnreadableCountersError, match="counted 2 marked passes, 3 were run"):
        parse_ncu_csv(BY_HAND, 3)


def test_two_marks_with_nothing_between_are_refused() -> None:
    without = "\n".join(line for line in BY_HAND.splitlines() if not line.startswith('"4"'))
    with pytest.raises(UnreadableCountersError, match="no kernel in pass 2 of 2"):
        parse_ncu_csv(without, 2)


RAW = """\
==PROF== Profiling "spin_kernel" - 0: 0%....50%....100% - 1 pass
==PROF== Profiling "add_kernel" - 1: 0%....50%....100% - 2 passes
"ID","Process ID","Kernel Name","dram__bytes_write.sum","dram__bytes_read.sum"
"","","","Kbyte","byte"
"0","4711","spin_kernel(long)","0","2,816"
"1","4711","add_kernel","65.5","67,108,864"
"""


def test_the_page_with_a_column_per_counter_is_read_too() -> None:
    assert parse_ncu_csv(RAW, 1) == (PassCounters(kernels=1, read_bytes=67_108_864, written_bytes=65_500),)
    with pytest.raises(MissingMetricError, match=r"no dram__bytes_write\.sum"):
        parse_ncu_csv(RAW.replace("dram__bytes_write.sum", "dram__bytes.sum"), 1)


def test_how_often_a_kernel_was_run_is_told() -> None:
    assert replays(RAW) == 2
    assert replays(BY_HAND) == 1
    assert replays("") == 1


def program(folder: Path, script: str) -> str:
    """A stand-in for ncu; `$log` is the file that it is to write."""
    path = folder / "ncu"
    path.write_text(f'#!/bin/sh\nwhile [ "$1" != --log-file ]; do shift; done\nlog=$2\n{script}\n')
    path.chmod(0o755)
    return str(path)


def test_the_counters_are_tried_with_one_kernel(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(RAW)
    assert probe_counters(program(tmp_path, f"cp {tmp_path}/raw.csv $log"), tmp_path) == 2


@pytest.mark.parametrize(
    ("script", "kind", "says"),
    [
        (f"echo '{PERMISSION.strip()}' > $log; exit 1", CounterPermissionError, "run as root"),
        ("echo 'Cannot connect to the driver'; exit 1", UnreadableCountersError, "no table.*Cannot connect"),
        ("sleep 60", UnreadableCountersError, "did not count one kernel"),
    ],
)
def test_counters_that_cannot_be_had_say_why(tmp_path: Path, script: str, kind: type[CounterError], says: str) -> None:
    with pytest.raises(kind, match=f"(?s){says}"):
        probe_counters(program(tmp_path, script), tmp_path, limit_s=1.0 if script.startswith("sleep") else 60.0)


def test_caches_and_clocks_are_left_as_the_engine_has_them() -> None:
    command = ncu_command("ncu", Path("out.csv"), ["python", "step.py"])
    text = " ".join(command)
    for wanted in ("--profile-from-start off", "--clock-control none", "--cache-control none", "--print-units base"):
        assert wanted in text
    assert command[-2:] == ["python", "step.py"]


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(NcuNotInstalledError, match="--ncu /no/such/ncu"):
        find_ncu("/no/such/ncu")
