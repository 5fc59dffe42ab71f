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
)

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


def test_caches_and_clocks_are_left_as_the_engine_has_them() -> None:
    command = ncu_command("ncu", Path("out.csv"), ["python", "step.py"])
    text = " ".join(command)
    for wanted in ("--profile-from-start off", "--clock-control none", "--cache-control none", "--print-units base"):
        assert wanted in text
    assert command[-2:] == ["python", "step.py"]


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(NcuNotInstalledError, match="--ncu /no/such/ncu"):
        find_ncu("/no/such/ncu")
