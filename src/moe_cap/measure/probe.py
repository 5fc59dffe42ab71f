"""What this machine can really do: copy rates of its memories and of the link between them, rate of its matrix units.

Each is the best of several. They are the measured peaks of a result, kept in a file between runs under a fingerprint of
the machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch
from pydantic import JsonValue

from moe_cap.errors import InvalidRunError
from moe_cap.hardware import detect_machine
from moe_cap.measure.environment import cpu_name
from moe_cap.measure.matrix_products import NOT_PROBED, PRODUCTS

log = logging.getLogger("moe_cap")

PROBE_VERSION = 4
REPEATS = 7
QUIET_SHARE = 0.6
"""Below this share of busy processors a probe is trusted for good."""
CPU_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
SMALLEST_COPY_BYTES = 256 * 2**20
CUDA_COPY_BYTES = 2 * 2**30
CPU_SIDE, CUDA_SIDE = 2048, 8192
"""Side of the square matrices that are multiplied: compute bound, and not long."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Measured peaks of one device of this machine.

    Attributes:
        copy_bytes_per_s: bytes read plus bytes written per second of a copy between buffers larger than the caches.
        gemm_flops_per_s: 2 n^3 operations per second of a square matrix product, by compute dtype.
        gemm_missing: why there is no rate, by compute dtype, for those that the device or torch has no product of.
        host_copy_bytes_per_s: the same of a copy within the host's memory; of a CPU, its own.
        host_to_device_bytes_per_s: bytes per second of a copy from the host's pinned memory; None on a CPU.
        device_to_host_bytes_per_s: the other way.
        copied_bytes: size of each buffer on the device.
        host_copied_bytes: size of each buffer on the host, those of the link among them.
        threads: CPU threads that did it.
        busy_share: how busy the processors were just before, load average over cores.
    """

    version: int
    fingerprint: str
    measured_at: str
    device: str
    threads: int
    copy_bytes_per_s: float
    copied_bytes: int
    gemm_flops_per_s: dict[str, float]
    gemm_missing: dict[str, str]
    gemm_side: int
    host_copy_bytes_per_s: float
    host_copied_bytes: int
    host_to_device_bytes_per_s: float | None
    device_to_host_bytes_per_s: float | None
    repeats: int
    busy_share: float

    def as_json(self) -> dict[str, JsonValue]:
        """For the record."""
        return asdict(self)


def probe_machine(device: str, home: Path) -> Probe:
    """This machine's probe, from its file or measured now with the threads that torch is set to.

    A probe taken while the machine was busy sees too little; it is repeated at the next run, and the better of each
    number is kept.
    """
    fingerprint = _fingerprint(device)
    path = home / "probe" / f"{fingerprint}.json"
    known = _read(path)
    if known is not None and known.busy_share < QUIET_SHARE:
        return known
    log.info("probing %s: copy bandwidth and matrix products", device)
    probe = measure(device, fingerprint)
    if device.startswith("cuda"):
        torch.cuda.empty_cache()  # a server that is started after this wants it: 4 GB, more than its share leaves
    if known is not None:
        probe = best_of(probe, known)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(probe.as_json(), indent=1), encoding="utf-8")
    temporary.replace(path)
    return probe


def uuid_of(device: str) -> str | None:
    """Identity of the very card behind torch's name of it, whatever CUDA_VISIBLE_DEVICES renumbers; None on a CPU.

    Raises:
        InvalidRunError: this process does not see it.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    if int(index or 0) >= (number := torch.cuda.device_count()):
        raise InvalidRunError(f"the engine runs on {device}, torch sees {number} GPUs here: see CUDA_VISIBLE_DEVICES")
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else str(uuid).removeprefix("GPU-")


def busy_share() -> float:
    """Load average of the last minute over the processors of this process; 0 on an idle machine."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


def best_of(probe: Probe, other: Probe) -> Probe:
    """The higher of each rate; everything else from the first, the newer one."""
    gemm = {name: max(rate, other.gemm_flops_per_s.get(name, 0.0)) for name, rate in probe.gemm_flops_per_s.items()}
    return replace(
        probe,
        copy_bytes_per_s=max(probe.copy_bytes_per_s, other.copy_bytes_per_s),
        gemm_flops_per_s=gemm,
        host_copy_bytes_per_s=max(probe.host_copy_bytes_per_s, other.host_copy_bytes_per_s),
        host_to_device_bytes_per_s=_higher(probe.host_to_device_bytes_per_s, other.host_to_device_bytes_per_s),
        device_to_host_bytes_per_s=_higher(probe.device_to_host_bytes_per_s, other.device_to_host_bytes_per_s),
    )


def _higher(rate: float | None, other: float | None) -> float | None:
    return max((each for each in (rate, other) if each is not None), default=None)


def _read(path: Path) -> Probe | None:
    if not path.is_file():
        return None
    body = json.loads(path.read_text(encoding="utf-8"))
    return Probe(**body) if body.get("version") == PROBE_VERSION else None


def measure(device: str, fingerprint: str) -> Probe:
    """Run the probe."""
    busy = busy_share()
    cuda = device.startswith("cuda")
    host_size = min(max(SMALLEST_COPY_BYTES, 2 * _last_level_cache_bytes()), _free_bytes("cpu") // 4)
    size = min(CUDA_COPY_BYTES, _free_bytes(device) // 4) if cuda else host_size
    side = CUDA_SIDE if cuda else CPU_SIDE
    gemm_flops_per_s, gemm_missing = _gemm_rates(device, side)
    copy_bytes_per_s = _copy_rate(device, device, size) * 2
    return Probe(
        version=PROBE_VERSION,
        fingerprint=fingerprint,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        device=_name(device),
        threads=torch.get_num_threads(),
        copy_bytes_per_s=copy_bytes_per_s,
        copied_bytes=size,
        gemm_flops_per_s=gemm_flops_per_s,
        gemm_missing=gemm_missing,
        gemm_side=side,
        host_copy_bytes_per_s=_copy_rate("cpu", "cpu", host_size) * 2 if cuda else copy_bytes_per_s,
        host_copied_bytes=host_size,
        host_to_device_bytes_per_s=_copy_rate("cpu", device, host_size) if cuda else None,
        device_to_host_bytes_per_s=_copy_rate(device, "cpu", host_size) if cuda else None,
        repeats=REPEATS,
        busy_share=busy,
    )


def _name(device: str) -> str:
    return str(torch.cuda.get_device_name(device)) if device.startswith("cuda") else cpu_name()


def _copy_rate(source: str, target: str, size: int) -> float:
    """Bytes of one buffer per second, the best of several copies; a link's end in the host's memory is pinned."""
    link = source != target
    read = torch.ones(size, dtype=torch.uint8, device=source, pin_memory=link and source == "cpu")
    written = torch.zeros(size, dtype=torch.uint8, device=target, pin_memory=link and target == "cpu")
    device = source if target == "cpu" else target
    return size / _best_s(lambda: written.copy_(read, non_blocking=True), device)


def _gemm_rates(device: str, side: int) -> tuple[dict[str, float], dict[str, str]]:
    """Rates by compute dtype, and of the others why they have none."""
    rates, missing = {}, dict(NOT_PROBED)
    for name, product in PRODUCTS.items():
        rate = product.missing(device) or _gemm_rate(device, name, side)
        if isinstance(rate, str):
            missing[name] = rate
        else:
            rates[name] = rate
    return rates, missing


def _gemm_rate(device: str, name: str, side: int) -> float | str:
    """2 n^3 operations per second, or what torch says where it refuses the product on this very device."""
    try:
        return 2 * side**3 / _best_s(PRODUCTS[name].prepare(device, side), device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return f"torch {torch.__version__} refuses a product in {name} here: {str(error).splitlines()[0]}"


def _best_s(work: Callable[[], object], device: str) -> float:
    """Shortest of several runs, seconds, after one that warms up."""
    times = []
    for _ in range(REPEATS + 1):
        started_s = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started_s)
    return min(times[1:])


def _last_level_cache_bytes() -> int:
    """Largest cache that the kernel reports, 0 where it reports none."""
    sizes = [path.read_text().strip() for path in CPU_CACHE.glob("index*/size")]
    return max((int(size.removesuffix("K")) * 1024 for size in sizes if size.endswith("K")), default=0)


def _free_bytes(device: str) -> int:
    return (
        int(torch.cuda.mem_get_info(device)[0]) if device.startswith("cuda") else int(psutil.virtual_memory().available)
    )


def _fingerprint(device: str) -> str:
    """Whatever changes it changes the peaks."""
    parts = (
        PROBE_VERSION,
        platform.node(),
        cpu_name(),
        psutil.virtual_memory().total,
        *(_card(device) if device.startswith("cuda") else (device,)),
        torch.get_num_threads(),
        torch.__version__,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _card(device: str) -> tuple[str | float | None, ...]:
    """Its name and identity, its driver, and the watts that it may take; what its library does not tell is None."""
    uuid = uuid_of(device)
    told = next((card for card in detect_machine().gpus if card.uuid == uuid), None) if uuid is not None else None
    return (_name(device), uuid, *((told.driver, told.power_limit_w) if told else (None, None)))
