"""What a run stood on: interpreter, packages, operating system, processor, code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from pydantic import JsonValue

PACKAGES = (
    "moe-cap", "torch", "torchao", "transformers", "tokenizers", "safetensors", "accelerate", "lm_eval", "datasets",
    "numpy", "zeus", "pydantic", "huggingface_hub",
)  # fmt: skip
DECIDING_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF")
"""Variables that change what is measured. Nothing else of the environment is ever recorded: it may hold secrets."""
CODE = ("src", "backend", "app.py", "assets", "constraints.txt", "pyproject.toml")
"""What decides how a run goes; a worker that publishes into its own checkout changes other files there."""
GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_environment(checkout: Path, environ: Mapping[str, str]) -> dict[str, JsonValue]:
    """Everything that another run would have to match."""
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "packages": dict(_versions()),
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "governor": GOVERNOR.read_text().strip() if GOVERNOR.is_file() else None,
        "load_average_1min": os.getloadavg()[0],
        "variables": {name: environ[name] for name in DECIDING_VARIABLES if name in environ},
        **_commit(checkout),
    }


def cpu_name() -> str:
    """As the kernel names it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _versions() -> list[tuple[str, JsonValue]]:
    found: list[tuple[str, JsonValue]] = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, None))
    return found


def _commit(checkout: Path) -> dict[str, JsonValue]:
    """Commit of the checkout, and whether its code was changed since; both None outside a repository."""
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain", "--", *CODE)
    return {"code_commit": commit or None, "code_changed": None if changes is None else bool(changes)}


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        ran = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip()
