"""How long describe, step and plan take, for every published configuration at hand, against the 50 ms that we promise.

    python benchmarks/accounting_latency.py [FOLDER_OF_CONFIGS] [--repeat N]

Every call starts from a freshly read config, so nothing about that model is remembered from the call before; "again" is
the same question asked a second time. CPU time is printed beside wall time, which grows when others use the machine.
Configurations of families that are not read yet are counted and named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from moe_cap import all_devices, decode_step, feasible, read_config, requirement, step_bytes, step_flops, storage_of
from moe_cap import with_uniform_routing as routed
from moe_cap.architecture import Architecture
from moe_cap.errors import MoECapError

BUDGET_S = 0.050
SHARED = Path(os.environ.get("MOE_CAP_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def describe(path: Path) -> Architecture:
    arch = read_config(path)
    arch.parameters()
    arch.kv_elements_per_token()
    return arch


def step(arch: Architecture) -> None:
    one = routed(decode_step([4096] * 32), arch)
    step_bytes(arch, one, storage_of(arch, "bf16"))
    step_flops(arch, one)


def plan(arch: Architecture) -> None:
    storage, target = storage_of(arch, "bf16"), {"batch": 32, "context_tokens": 4096, "tpot_s": 0.05}
    requirement(arch, storage, **target)
    feasible(all_devices(), arch, storage, **target)


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU time."""
    start_s, cpu_s = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start_s, time.process_time() - cpu_s


def measure(configs: list[Path], repeat: int) -> tuple[dict[str, list[tuple[float, float]]], dict[str, str]]:
    """Wall and CPU seconds by operation, and the configurations that could not be read with the reason."""
    found: dict[str, list[tuple[float, float]]] = {
        "describe": [],
        "step": [],
        "step again": [],
        "plan": [],
        "plan again": [],
    }
    unread: dict[str, str] = {}
    for path in configs:
        try:
            read_config(path)
        except MoECapError as error:
            unread[path.stem] = str(error)
            continue
        for _ in range(repeat):
            found["describe"].append(seconds(lambda path=path: describe(path)))
            for name, operation in (("step", step), ("plan", plan)):
                arch = read_config(path)
                found[name].append(seconds(lambda operation=operation, arch=arch: operation(arch)))
                found[f"{name} again"].append(seconds(lambda operation=operation, arch=arch: operation(arch)))
    return found, unread


def in_a_new_process(code: str) -> float:
    """Seconds that `code` prints, in a fresh interpreter."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(ran.stdout)


IMPORT = "import time; t = time.perf_counter(); import moe_cap; print(time.perf_counter() - t)"
CATALOGUE = (
    "import time, moe_cap; f = moe_cap.all_devices; t = time.perf_counter(); f(); print(time.perf_counter() - t)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", type=Path, nargs="?", default=SHARED / "data" / "model_configs")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    configs = sorted(options.configs.glob("*.json"))
    if not configs:
        sys.exit(f"no *.json in {options.configs}: give a folder of config.json files")
    all_devices()
    found, unread = measure(configs, options.repeat)
    print(f"{len(configs) - len(unread)} models x {options.repeat}, {len(all_devices())} devices; milliseconds")
    print(f"{'operation':<24}{'wall median':>12}{'p95':>9}{'max':>9}{'CPU median':>12}{'max':>9}")
    for name, values in found.items():
        wall, cpu = (sorted(column) for column in zip(*values, strict=True))
        p95 = wall[min(len(wall) - 1, round(0.95 * len(wall)))]
        shown = (statistics.median(wall), p95, wall[-1], statistics.median(cpu), cpu[-1])
        print(
            f"{name:<24}{shown[0] * 1e3:>12.2f}"
            + "".join(f"{x * 1e3:>{w}.2f}" for x, w in zip(shown[1:], (9, 9, 12, 9), strict=True))
        )
    for name, code in (("import moe_cap", IMPORT), ("catalogue, first time", CATALOGUE)):
        print(f"{name:<24}{statistics.median(in_a_new_process(code) for _ in range(options.repeat)) * 1e3:>12.2f}")
    late = [name for name, values in found.items() if statistics.median(wall for wall, _ in values) > BUDGET_S]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"budget {BUDGET_S * 1e3:g} ms: {'kept' if not late else 'missed by the median of ' + ', '.join(late)}")
    for name, reason in unread.items():
        print(f"not read: {name}: {reason}")


if __name__ == "__main__":
    main()
