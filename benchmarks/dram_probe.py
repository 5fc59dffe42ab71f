"""Whether ncu can read the counters here: one tiny kernel under the very options, before any model is drawn."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.dram_counters import UnreadableCountersError, ncu_command, parse_ncu_csv, replays
from moe_cap.measure.engines.server import GRACE_S, clean_environment
from moe_cap.measure.guarded import GuardedProcess

LIMIT_S = 120.0
"""Importing torch under ncu takes some 10 s; a machine whose counters are walled off may never answer."""
LOOK_S = 0.1
PLAIN_NUMBERS = {"LC_ALL": "C"}
"""ncu writes numbers as the locale does, and some locales separate thousands by points."""
KERNELS = """
import torch
filled = torch.zeros(1 << 24, device="cuda")
torch.cuda.synchronize()
torch.cuda.profiler.start()
torch.cuda._sleep(1)
filled.add_(1)
torch.cuda.synchronize()
torch.cuda.profiler.stop()
"""


def probe_counters(ncu: str, home: Path, limit_s: float = LIMIT_S) -> int:
    """Read the counters of one kernel of torch, marked as a pass is.

    Args:
        ncu: the program.
        home: environment folder with torch, the engine's.
        limit_s: until which ncu has to be done.

    Returns:
        How often ncu ran the kernel for the two counters: 1 unless they do not fit into one pass over it.

    Raises:
        CounterError: they cannot be read here; says why, and what to do where that is known.
    """
    with tempfile.TemporaryDirectory(prefix="moe-cap-ncu-") as folder:
        counters, log = Path(folder) / "ncu.csv", Path(folder) / "said.log"
        process = GuardedProcess(
            ncu_command(ncu, counters, [str(home / "bin" / "python"), "-c", KERNELS]),
            log=log, ending=Path(folder) / "ending.json",
            environ=clean_environment(os.environ, PLAIN_NUMBERS), grace_s=GRACE_S,
        )  # fmt: skip
        end = time.monotonic() + limit_s
        try:
            while not process.has_ended():
                if time.monotonic() > end:
                    raise UnreadableCountersError(f"ncu did not count one kernel in {limit_s:.0f} s; is it walled off?")
                time.sleep(LOOK_S)
        finally:
            process.stop()
        told = counters.read_text(encoding="utf-8", errors="replace") if counters.is_file() else ""
        said = log.read_text(encoding="utf-8", errors="replace")
    try:
        parse_ncu_csv(told, 1)
    except UnreadableCountersError as error:
        raise type(error)(f"{error}\n{said.strip()[-2000:]}") from None
    return replays(told)


def explain_replays(times: int) -> str:
    """What more than one pass over a kernel does to its counters, for people."""
    return (
        f"ncu runs every kernel {times} times for the two counters: the later ones find caches that the first one"
        " filled, so what fits into them is counted too low"
    )
