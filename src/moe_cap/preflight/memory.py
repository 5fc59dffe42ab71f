"""Does it fit: weights, KV cache of the largest load, and what an engine needs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moe_cap.architecture import Architecture
from moe_cap.errors import UnknownHardwareError
from moe_cap.hardware import Machine, find_device
from moe_cap.hardware.detect import parse_meminfo
from moe_cap.precision import StoragePlan, stored_bytes
from moe_cap.submission import Submission

RUNTIME_BYTES = 1e9
"""Interpreter, framework, kernels and allocator of one engine process."""
ACTIVATION_COPIES = 16
"""Hidden states that are alive at once in a layer, as a multiple of one, in fp32."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a submission needs at its peak.

    Attributes:
        weights_bytes: of the weights in the precision that was asked for.
        kv_bytes: of cache and state at the highest concurrency, with every request at its full length.
        overhead_bytes: activations, logits, runtime, and the stored weights that are held while they are converted.
    """

    weights_bytes: int
    kv_bytes: float
    overhead_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.overhead_bytes


def need_of(submission: Submission, arch: Architecture, storage: StoragePlan, weight_file_bytes: int) -> Need:
    """What `submission` needs, from the model's structure."""
    sequences = max(submission.concurrency)
    context = submission.input_tokens + submission.output_tokens
    cached = sum(layer.mixer.kv_cached(context) for layer in arch.layers)
    per_sequence = cached * storage.kv.bits / 8 + arch.state_bytes(storage.state, storage.plain)
    weights = stored_bytes(arch, storage)
    activations = 4 * sequences * (submission.input_tokens * arch.hidden_size * ACTIVATION_COPIES + arch.vocab_size)
    converting = max(0, weight_file_bytes - weights)
    return Need(weights, sequences * per_sequence, activations + converting + RUNTIME_BYTES)


@dataclass(frozen=True, slots=True)
class Room:
    """The memory that an engine would have.

    Attributes:
        total_bytes: all of the device's; None when it is not known.
        free_bytes: what is free now; None where it cannot be told.
        where: for people.
    """

    total_bytes: float | None
    free_bytes: float | None
    where: str


def room_for(submission: Submission, machine: Machine, *, proc: Path = Path("/proc")) -> Room:
    """The memory of the device that was asked for, or else of this machine's first device."""
    here = machine.devices[0]
    if submission.hardware is not None and submission.hardware != here.device_id:
        try:
            return Room(find_device(submission.hardware).memory_bytes.value, None, submission.hardware)
        except UnknownHardwareError:
            return Room(None, None, submission.hardware)
    on_host = here.memory_bytes == machine.dram_bytes
    return Room(here.memory_bytes, _available_bytes(proc) if on_host else None, f"this machine ({here.name})")


def _available_bytes(proc: Path) -> float | None:
    """MemAvailable of the kernel, which counts what it can take back from caches."""
    try:
        return parse_meminfo((proc / "meminfo").read_text(encoding="ascii"), "MemAvailable")
    except OSError:
        return None
