"""What this machine has, as canonical ids. The vendors' libraries say it; sizes and parts of names prove nothing.

Nothing is imported or opened before `detect_machine` is called, so a machine without a GPU or a driver is no special
case: its processor is the device, with the id `cpu-probed`, and a probe serves its peaks.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moe_cap.hardware.catalogue import identify_device

CPU_PROBED = "cpu-probed"
"""Id of a processor that only its probe describes."""

NVML_VIRTUALISATION_VGPU = 2
"""NVML_GPU_VIRTUALIZATION_MODE_VGPU: a share of a card, seen from inside a virtual machine."""


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """One device as its vendor's library describes it.

    Attributes:
        device_id: canonical id of the catalogue; None when it is not in it or when its peaks would not hold.
        reason: why there is no `device_id`.
        name: product name as the library says it.
        pci_id: `vendor:device`, lower-case hex.
        memory_bytes: as the library says it; drivers reserve some, so it is no key to anything.
        driver: version of the driver.
        uuid: of this very card, as CUDA spells it (without `GPU-`); None where the library does not say.
    """

    device_id: str | None
    reason: str | None
    vendor: str
    name: str
    pci_id: str | None
    memory_bytes: int | None
    driver: str | None
    uuid: str | None = None
    power_limit_w: float | None = None
    """What the card may take at present, by its driver: below its rating its clocks, and so its peaks, are lower."""


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine. What could not be read is None."""

    devices: tuple[FoundDevice, ...]
    cpu_model: str | None
    cpu_vendor: str | None
    sockets: int | None
    cores: int | None
    """Physical cores over all sockets."""
    threads: int | None
    dram_bytes: int | None
    os: str
    architecture: str

    @property
    def processor(self) -> FoundDevice:
        """The processor as a device, on a machine with GPUs too."""
        name = self.cpu_model or "processor"
        return FoundDevice(CPU_PROBED, None, self.cpu_vendor or "unknown", name, None, self.dram_bytes, None)

    @property
    def gpus(self) -> tuple[FoundDevice, ...]:
        """The devices that are no processor, in the vendors' order."""
        return tuple(device for device in self.devices if device.device_id != CPU_PROBED)


def detect_machine(
    readers: Sequence[Callable[[], tuple[FoundDevice, ...]]] | None = None, *, proc: Path = Path("/proc")
) -> Machine:
    """Ask every vendor's library and the operating system what this machine has.

    Args:
        readers: one per vendor's library; the defaults are NVML and AMD SMI.
        proc: where the kernel's process file system is mounted.
    """
    cpu = parse_cpuinfo(_text(proc / "cpuinfo"))
    dram_bytes = parse_meminfo(_text(proc / "meminfo")) or _sysconf_memory()
    cpu_model = cpu.model or platform.processor() or None
    machine = Machine(
        devices=tuple(device for read in (readers or (read_nvidia, read_amd)) for device in read()),
        cpu_model=cpu_model,
        cpu_vendor=cpu.vendor,
        sockets=cpu.sockets,
        cores=cpu.cores,
        threads=cpu.threads or os.cpu_count(),
        dram_bytes=dram_bytes,
        os=platform.platform(),
        architecture=platform.machine(),
    )
    return machine if machine.devices else replace(machine, devices=(machine.processor,))


def read_nvidia() -> tuple[FoundDevice, ...]:
    """Every NVIDIA GPU that NVML sees (whatever CUDA_VISIBLE_DEVICES hides); empty without driver or library."""
    nvml = _library("pynvml")
    return () if nvml is None else ask_nvml(nvml)


def read_amd() -> tuple[FoundDevice, ...]:
    """Every AMD GPU that AMD SMI sees; empty without driver or library."""
    amdsmi = _library("amdsmi")
    return () if amdsmi is None else ask_amdsmi(amdsmi)


def ask_nvml(nvml: Any) -> tuple[FoundDevice, ...]:
    """Every GPU that this NVML binding (the module `pynvml`) reports."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        driver = _string(nvml.nvmlSystemGetDriverVersion())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_nvidia_device(nvml, handle, driver) for handle in handles)
    finally:
        nvml.nvmlShutdown()


def ask_amdsmi(amdsmi: Any) -> tuple[FoundDevice, ...]:
    """Every GPU that this AMD SMI binding (the module `amdsmi`) reports."""
    try:
        amdsmi.amdsmi_init()
    except amdsmi.AmdSmiException:
        return ()
    try:
        return tuple(_amd_device(amdsmi, handle) for handle in amdsmi.amdsmi_get_processor_handles())
    finally:
        amdsmi.amdsmi_shut_down()


def _nvidia_device(nvml: Any, handle: Any, driver: str) -> FoundDevice:
    name = _string(nvml.nvmlDeviceGetName(handle))
    # pciDeviceId holds the device in its upper and the vendor in its lower 16 bits.
    combined = int(nvml.nvmlDeviceGetPciInfo(handle).pciDeviceId)
    pci_id = f"{combined & 0xFFFF:04x}:{combined >> 16:04x}"
    return _found(
        vendor="NVIDIA",
        name=name,
        pci_id=pci_id,
        memory_bytes=_asked(nvml, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total)),
        driver=driver,
        shared=_nvidia_share(nvml, handle),
        uuid=_nvidia_uuid(nvml, handle),
        limit_mw=_asked(nvml, lambda: int(nvml.nvmlDeviceGetEnforcedPowerLimit(handle))),
    )


def _nvidia_uuid(nvml: Any, handle: Any) -> str | None:
    try:
        return _string(nvml.nvmlDeviceGetUUID(handle)).removeprefix("GPU-")
    except nvml.NVMLError:
        return None


def _nvidia_share(nvml: Any, handle: Any) -> str | None:
    """Why the card's peaks do not hold for what this machine gets of it; None when it gets the whole card."""
    if _asked(nvml, lambda: int(nvml.nvmlDeviceGetVirtualizationMode(handle))) == NVML_VIRTUALISATION_VGPU:
        return "a virtual GPU: a share of a card"
    if _asked(nvml, lambda: int(nvml.nvmlDeviceGetMigMode(handle)[0])) == 1:
        return "MIG is on: an instance has a slice of the card's peaks"
    return None


def _asked(nvml: Any, question: Callable[[], int]) -> int | None:
    """The answer, None where this device or driver does not know the question."""
    try:
        return question()
    except nvml.NVMLError:
        return None


def _amd_device(amdsmi: Any, handle: Any) -> FoundDevice:
    asic: Mapping[str, Any] = amdsmi.amdsmi_get_gpu_asic_info(handle)
    try:
        partition = str(amdsmi.amdsmi_get_gpu_compute_partition(handle))
    except amdsmi.AmdSmiException:
        partition = "SPX"
    megabytes = amdsmi.amdsmi_get_gpu_vram_info(handle)["vram_size"]
    return _found(
        vendor="AMD",
        name=str(asic["market_name"]),
        pci_id=f"{int(str(asic['vendor_id']), 16):04x}:{int(str(asic['device_id']), 16):04x}",
        memory_bytes=int(megabytes) * 2**20,
        driver=str(amdsmi.amdsmi_get_gpu_driver_info(handle)["driver_version"]),
        shared=None if partition == "SPX" else f"compute partition {partition}: a slice of the card's peaks",
    )


def _found(
    *,
    vendor: str,
    name: str,
    pci_id: str,
    memory_bytes: int | None,
    driver: str,
    shared: str | None,
    uuid: str | None = None,
    limit_mw: int | None = None,
) -> FoundDevice:
    device = identify_device(pci_id=pci_id, library_name=name)
    reason = shared or (None if device else f"{name} ({pci_id}) is not in the catalogue; a probe can serve it")
    known = device.id if device and not shared else None
    limit_w = None if limit_mw is None else limit_mw / 1e3
    return FoundDevice(known, reason, vendor, name, pci_id, memory_bytes, driver, uuid, limit_w)


@dataclass(frozen=True, slots=True)
class Cpu:
    """What /proc/cpuinfo says."""

    model: str | None
    vendor: str | None
    sockets: int | None
    cores: int | None
    threads: int | None


def parse_cpuinfo(text: str) -> Cpu:
    """Model, vendor and counts from the text of /proc/cpuinfo (x86 and the parts of it that Arm kernels write)."""
    lines = [[line.partition(":") for line in block.splitlines()] for block in text.split("\n\n")]
    blocks = [{key.strip(): value.strip() for key, _, value in block} for block in lines]
    processors = [block for block in blocks if "processor" in block]
    if not processors:
        return Cpu(None, None, None, None, None)
    first = processors[0]
    sockets = {block["physical id"] for block in processors if "physical id" in block}
    cores = {(block["physical id"], block["core id"]) for block in processors if "core id" in block}
    return Cpu(
        model=first.get("model name"),
        vendor=first.get("vendor_id"),
        sockets=len(sockets) or None,
        cores=len(cores) or None,
        threads=len(processors),
    )


def parse_meminfo(text: str, entry: str = "MemTotal") -> int | None:
    """Bytes of main memory, or of another entry, from the text of /proc/meminfo."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == entry:
            return int(value.split()[0]) * 1024
    return None


def _library(name: str) -> Any | None:
    # A binding whose shared library is missing answers with OSError or KeyError and writes to standard output.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, KeyError):
            return None


def _string(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _sysconf_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
