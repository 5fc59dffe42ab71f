"""How much load can a client deliver on time, and how well does it measure? Ours against aiperf and guidellm.

    .venv/bin/python benchmarks/load_client.py            # everything, about 40 minutes on two quiet cores
    .venv/bin/python benchmarks/load_client.py --rounds 1 --only accuracy

One mock server, one run, contenders interleaved (A B C A B C), medians over the rounds. The server's log is the judge:

(a) The highest rate of a constant open loop that a client keeps. The kernel stamps each request as it reaches the
    server; request i of rate r was due at t0 + i/r, with t0 such that one request in a hundred came early. A rate is
    kept when every request was answered, the client reported each of them, and the 99th percentile of the lag is at
    most 5 ms, in at least one of two tries. The first two seconds, in which clients warm up, are left out. Rates are
    doubled until one is not kept, then the bracket is halved twice (geometrically).
(b) The absolute error of each request's time to first token and mean inter-token latency against what the server did:
    its writes minus the kernel's stamp of the request.

Server and clients share the machine: the figures are ratios between clients, not records.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from load_contenders import CACHE, Contender, Job, Reported, contenders

from moe_cap.metrics.latency import summary

LAG_BUDGET_S = 0.005
TRIES = 2
OUTPUT_TOKENS_RATE = 4
SECONDS_PER_RATE = 5.0
SETTLING_S = 2.0
FIRST_RATE = 100.0
LOWEST_RATE = 5.0
HALVINGS = 2
ACCURACY_LOADS = ((10.0, 100, 32), (50.0, 400, 32))
"""Rate, requests, output tokens: an almost idle client, and one with some ten requests under way at once."""

TTFT_S, ITL_S, SPREAD = 0.05, 0.005, 0.3


@dataclass(frozen=True)
class Served:
    """One request in the server's log."""

    key: str
    serial: str
    received_s: float
    token_s: tuple[float, ...]
    late_s: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """One contender, one load: what the server saw and what the client said."""

    contender: str
    rate_per_s: float
    answered: int
    reported: int
    delivered_per_s: float
    lag_p99_s: float
    server_late_p99_s: float
    ttft_error_s: tuple[float, ...]
    itl_error_s: tuple[float, ...]
    load_average: float
    others_share: float
    """Share of the machine's processor time that went to somebody else during the trial."""


@contextmanager
def mock_server(spread: float) -> Iterator[str]:
    """A fresh server in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    knobs = ["--ttft-s", str(TTFT_S), "--itl-s", str(ITL_S), "--spread", str(spread), "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "moe_cap.measure.mock_server", *knobs])
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def server_log(url: str) -> list[Served]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/mock/log", timeout=60) as response:
        told = json.load(response)
    return [
        Served(r["id"], str(r["serial"]), r["received_s"], tuple(r["token_s"]), tuple(r["late_s"]))
        for r in told["requests"]
    ]


def busy_s() -> float:
    """Processor seconds that the whole machine has spent on anything."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    idle = int(fields[3]) + int(fields[4])
    return (sum(map(int, fields[:8])) - idle) / os.sysconf("SC_CLK_TCK")


def own_s() -> float:
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in own)


def trial(contender: Contender, rate: float, count: int, output_tokens: int, spread: float) -> Trial:
    load_average, began_s, busy_before, own_before = os.getloadavg()[0], time.monotonic(), busy_s(), own_s()
    folder = CACHE / "load-bench" / contender.name
    with mock_server(spread) as url:
        try:
            reported = contender.run(Job(url, rate, count, output_tokens), folder)
        except (subprocess.SubprocessError, OSError, KeyError, IndexError, ValueError) as error:
            print(f"  {contender.name} at {rate:g}/s gave no result: {error!r:.200}", flush=True)
            reported = []
        try:
            log = server_log(url)
        except (OSError, ValueError) as error:
            print(f"  the server did not survive {contender.name} at {rate:g}/s: {error!r:.200}", flush=True)
            log = []
    elapsed_s = (time.monotonic() - began_s) * (os.cpu_count() or 1)
    others = max(0.0, (busy_s() - busy_before) - (own_s() - own_before)) / elapsed_s
    ttft, itl = errors(reported, log)
    lag, delivered = schedule_lag(log, rate)
    late = summary(late for served in log for late in served.late_s)
    return Trial(
        contender.name, rate, sum(len(s.token_s) == output_tokens for s in log), len(reported), delivered, lag,
        float("nan") if late is None else late.p99, ttft, itl, load_average, others,
    )  # fmt: skip


def schedule_lag(log: list[Served], rate: float) -> tuple[float, float]:
    """99th percentile of the lag and the delivered rate, both by the kernel's stamps at the server."""
    arrivals = sorted(served.received_s for served in log)[int(SETTLING_S * rate) :]
    if len(arrivals) < 2:
        return float("inf"), 0.0
    offsets = [arrived_s - index / rate for index, arrived_s in enumerate(arrivals)]
    began_s = sorted(offsets)[len(offsets) // 100]
    lag = summary(offset - began_s for offset in offsets)
    return float("inf") if lag is None else lag.p99, (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def errors(reported: list[Reported], log: list[Served]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    served = {key: one for one in log for key in (one.key, one.serial) if key}
    pairs = [(seen, served[seen.key]) for seen in reported if seen.key in served]
    whole = [(seen, one) for seen, one in pairs if len(one.token_s) > 1]
    ttft = tuple(abs(seen.ttft_s - (one.token_s[0] - one.received_s)) for seen, one in whole)
    gaps = [(one.token_s[-1] - one.token_s[0]) / (len(one.token_s) - 1) for _, one in whole]
    return ttft, tuple(abs(seen.mean_itl_s - gap) for (seen, _), gap in zip(whole, gaps, strict=True))


def keeps(contender: Contender, rate: float, trials: list[Trial]) -> bool:
    count = max(100, int(rate * (SECONDS_PER_RATE + SETTLING_S)))
    for _ in range(TRIES):
        one = trial(contender, rate, count, OUTPUT_TOKENS_RATE, 0.0)
        trials.append(one)
        kept = one.answered == one.reported == count and one.lag_p99_s <= LAG_BUDGET_S
        print(
            f"  {contender.name:9} {rate:8.1f}/s  delivered {one.delivered_per_s:8.1f}/s  "
            f"lag p99 {one.lag_p99_s * 1e3:9.2f} ms  server late p99 {one.server_late_p99_s * 1e3:7.2f} ms  "
            f"others {one.others_share:4.0%}  {'kept' if kept else 'not kept'}",
            flush=True,
        )
        if kept:
            return True
    return False


def highest_rate(contender: Contender, start: float, trials: list[Trial]) -> float:
    """The highest rate that was kept; 0 when not even the lowest was."""
    low, high = 0.0, start
    if keeps(contender, start, trials):
        while keeps(contender, high * 2, trials):
            high *= 2
        low, high = high, high * 2
    else:
        while high > LOWEST_RATE and low == 0.0:
            low = high / 2 if keeps(contender, high / 2, trials) else 0.0
            high = high if low else high / 2
    for _ in range(HALVINGS if low else 0):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if keeps(contender, middle, trials) else (low, middle)
    return low


def rate_benchmark(field: list[Contender], rounds: int, trials: list[Trial]) -> None:
    print(f"\n(a) highest rate at p99 lag <= {LAG_BUDGET_S * 1e3:g} ms, {OUTPUT_TOKENS_RATE} output tokens", flush=True)
    found: dict[str, list[float]] = {contender.name: [] for contender in field}
    for _ in range(rounds):
        for contender in field:
            start = max(LOWEST_RATE, statistics.median(found[contender.name] or [FIRST_RATE]))
            found[contender.name].append(highest_rate(contender, start, trials))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    for name, rates in found.items():
        print(f"{name:9} median {medians[name]:8.1f} requests/s   rounds {[round(rate, 1) for rate in rates]}")
    ours = field[0].name
    for name, rate in medians.items():
        if name != ours:
            print(f"{ours} / {name}: {medians[ours] / rate if rate else float('inf'):.1f} x")


def accuracy_benchmark(field: list[Contender], rounds: int, trials: list[Trial]) -> None:
    for rate, count, output_tokens in ACCURACY_LOADS:
        print(f"\n(b) measurement error: {rate:g} requests/s, {count} requests of {output_tokens} tokens", flush=True)
        runs: dict[str, list[Trial]] = {contender.name: [] for contender in field}
        for _ in range(rounds):
            for contender in field:
                runs[contender.name].append(trial(contender, rate, count, output_tokens, SPREAD))
        trials += [one for of_one in runs.values() for one in of_one]
        print_errors(runs, field[0].name)


def print_errors(runs: dict[str, list[Trial]], ours: str) -> None:
    print(" " * 10 + "".join(f"{label:>15}" for label in ERRORS) + "   others, server late p99")
    medians: dict[str, list[float]] = {}
    for name, of_one in runs.items():
        whole = [one for one in of_one if one.ttft_error_s]
        if not whole:
            print(f"{name:9} measured nothing")
            continue
        medians[name] = [statistics.median(column) for column in zip(*map(error_row, whole), strict=True)]
        others = statistics.median(one.others_share for one in whole)
        late_ms = statistics.median(one.server_late_p99_s for one in whole) * 1e3
        print(
            f"{name:10}"
            + "".join(f"{value:12.2f} us" for value in medians[name])
            + f"   {others:.0%}, {late_ms:.2f} ms"
        )
    for name, row in medians.items():
        if name != ours and ours in medians:
            ratios = "".join(f"{theirs / mine:13.1f} x" for theirs, mine in zip(row, medians[ours], strict=True))
            print(f"{name + ' / ' + ours}\n{'':10}{ratios}")


ERRORS = ("TTFT median", "TTFT mean", "TTFT p99", "ITL median", "ITL mean", "ITL p99")


def error_row(one: Trial) -> list[float]:
    """Microseconds, in the order of `ERRORS`."""
    summaries = [summary(one.ttft_error_s), summary(one.itl_error_s)]
    return [value * 1e6 for s in summaries if s is not None for value in (s.p50, s.mean, s.p99)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["rate", "accuracy"])
    parser.add_argument("--contenders", default="moe-cap,aiperf,guidellm", help="ours first")
    parser.add_argument("--output", type=Path, default=CACHE / "load-bench.json", help="every trial, raw")
    told = parser.parse_args()
    field = contenders(told.contenders.split(","))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()}")
    print(", ".join(f"{contender.name} ({contender.version})" for contender in field))
    trials: list[Trial] = []
    if told.only != "accuracy":
        rate_benchmark(field, told.rounds, trials)
    if told.only != "rate":
        accuracy_benchmark(field, told.rounds, trials)
    told.output.write_text(json.dumps([asdict(one) for one in trials]))


if __name__ == "__main__":
    main()
