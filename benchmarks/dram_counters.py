"""Nsight Compute's DRAM counters over marked passes: its command, the CSV that it writes, and how it fails. Pure.

The format is that of the documentation (Nsight Compute CLI, "Console Output" and `--csv`): lines that begin with `==`
are ncu's own, then a header and one row per kernel and metric, in the order of the launches. Read as well: the page
`raw`, which has one row per kernel, a column per metric, and a row of units behind the header.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

READ, WRITTEN = "dram__bytes_read.sum", "dram__bytes_write.sum"
MARK = "spin_kernel"
"""The kernel of `torch.cuda._sleep`, which no model launches: where a pass begins."""
UNITS = {"byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
USUAL_PLACES = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute")
ID, KERNEL, METRIC, UNIT, VALUE = "ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value"
TAIL_LINES = 8


class CounterError(Exception):
    """The counters cannot be had; the message says what to do."""


class NcuNotInstalledError(CounterError):
    """There is no `ncu`."""


class CounterPermissionError(CounterError):
    """The driver gives the counters to the administrator alone (ERR_NVGPUCTRPERM)."""


class MissingMetricError(CounterError):
    """This device or this version of ncu has no such counter."""


class UnreadableCountersError(CounterError):
    """ncu wrote something else than the passes that were asked for."""


@dataclass(frozen=True, slots=True)
class PassCounters:
    """One pass: bytes of all its kernels."""

    kernels: int
    read_bytes: float
    written_bytes: float


def find_ncu(given: str | None = None) -> str:
    """The program: the given one, else on the path, else where CUDA and Nsight Compute put it, the newest first.

    Raises:
        NcuNotInstalledError: nowhere.
    """
    if given is not None:
        if (found := shutil.which(given)) is None:
            raise NcuNotInstalledError(f"--ncu {given} is no program")
        return found
    versions = sorted(Path(USUAL_PLACES[1]).glob("*"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), USUAL_PLACES[0], *map(str, versions)])
    if (found := shutil.which("ncu", path=path)) is None:
        raise NcuNotInstalledError("no ncu: install Nsight Compute (package nsight-compute of CUDA), or give --ncu")
    return found


def ncu_command(ncu: str, output: Path, command: Sequence[str]) -> list[str]:
    """A command under ncu, its caches and clocks as they are; both counters should fit into one pass over a kernel."""
    return [
        ncu, "--target-processes", "all", "--profile-from-start", "off",
        "--clock-control", "none", "--cache-control", "none",
        "--metrics", f"{READ},{WRITTEN}", "--csv", "--print-units", "base", "--log-file", str(output), *command,
    ]  # fmt: skip


def parse_ncu_csv(text: str, passes: int) -> tuple[PassCounters, ...]:
    """The counters of every marked pass, in order.

    Args:
        text: ncu's log file.
        passes: how many were marked.

    Raises:
        CounterPermissionError: `ERR_NVGPUCTRPERM`.
        MissingMetricError: a counter is unknown, or has no value.
        UnreadableCountersError: no table, another unit, or another number of passes.
    """
    _refuse_failures(text)
    rows = _rows(text)
    if not rows:
        raise UnreadableCountersError(f"ncu wrote no table of counters; its last words:\n{_tail(text)}")
    found = [_sum(kernels) for kernels in _marked(rows)]
    if len(found) != passes:
        raise UnreadableCountersError(f"ncu counted {len(found)} marked passes, {passes} were run:\n{_tail(text)}")
    if empty := [index for index, counted in enumerate(found) if not counted.kernels]:
        raise UnreadableCountersError(f"ncu counted no kernel in pass {empty[0] + 1} of {passes}:\n{_tail(text)}")
    return tuple(found)


def replays(text: str) -> int:
    """How often ncu ran one kernel for the counters, at most, by its own words; 1 where it says nothing."""
    return max((int(times) for times in re.findall(r"- (\d+) pass(?:es)?\s*$", text, re.MULTILINE)), default=1)


def _rows(text: str) -> list[dict[str, str]]:
    """One row per kernel and metric, whichever page ncu wrote; empty where it wrote no table."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    start = next((place for place, line in enumerate(lines) if f'"{KERNEL}"' in line), len(lines))
    rows = list(csv.DictReader(lines[start:]))
    if any(None in row.values() for row in rows):
        raise UnreadableCountersError(f"ncu's table of counters is cut off:\n{_tail(text)}")
    if not rows or not {ID, KERNEL} <= rows[0].keys():
        return []
    if {METRIC, UNIT, VALUE} <= rows[0].keys():
        return rows
    units, *kernels = rows
    metrics = [metric for metric in (READ, WRITTEN) if metric in units]
    return [
        {ID: row[ID], KERNEL: row[KERNEL], METRIC: metric, UNIT: units[metric], VALUE: row[metric]}
        for row in kernels
        for metric in metrics
    ]


def _refuse_failures(text: str) -> None:
    if "ERR_NVGPUCTRPERM" in text:
        raise CounterPermissionError(
            "the driver does not let this user read the counters (ERR_NVGPUCTRPERM): run as root (a container wants"
            " --cap-add SYS_ADMIN), or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
        )
    if unknown := re.search(r"Failed to find metric\S* (?:regex:)?(?P<name>\S+)", text):
        raise MissingMetricError(f"ncu knows no counter {unknown['name']} on this device: take a newer Nsight Compute")
    if failed := re.search(r"^==ERROR== (?P<what>.*)$", text, re.MULTILINE):
        raise UnreadableCountersError(f"ncu: {failed['what']}\n{_tail(text)}")


def _marked(rows: Sequence[dict[str, str]]) -> Iterator[list[dict[str, str]]]:
    """The rows behind each mark; a mark has a row per metric, and no pass."""
    begun: list[dict[str, str]] | None = None
    mark = None
    for row in rows:
        if MARK not in row[KERNEL]:
            if begun is None:
                raise UnreadableCountersError(f"ncu counted {row[KERNEL]!r} before the first mark")
            begun.append(row)
        elif row[ID] != mark:
            if begun is not None:
                yield begun
            begun, mark = [], row[ID]
    if begun is not None:
        yield begun


def _sum(rows: Sequence[dict[str, str]]) -> PassCounters:
    kernels = {row[ID] for row in rows}
    totals = {}
    for metric in (READ, WRITTEN):
        told = {row[ID]: _bytes(row) for row in rows if row[METRIC] == metric}
        if missing := kernels - told.keys():
            raise MissingMetricError(f"{len(missing)} of {len(kernels)} kernels of a pass have no {metric}")
        totals[metric] = sum(told.values())
    return PassCounters(len(kernels), totals[READ], totals[WRITTEN])


def _bytes(row: dict[str, str]) -> float:
    if row[UNIT] not in UNITS:
        raise UnreadableCountersError(f"{row[METRIC]} in {row[UNIT]!r}: expected one of {', '.join(UNITS)}")
    try:
        return float(row[VALUE].replace(",", "")) * UNITS[row[UNIT]]
    except ValueError:
        raise MissingMetricError(f"{row[METRIC]} of {row[KERNEL]} is {row[VALUE]!r}, no number") from None


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
