"""The machine that a run stood on: its device, the peaks from the datasheet and those from the probe."""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.errors import InvalidRunError, MissingPeakError
from moe_cap.hardware import Device, DeviceKind, Machine, find_device, probed_device
from moe_cap.hardware.detect import CPU_PROBED, FoundDevice
from moe_cap.hardware.own_figures import OwnFigures
from moe_cap.measure.probe import Probe
from moe_cap.result import HardwareRecord


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of one device; None where the datasheet, or the probe, has none for this compute dtype."""

    compute_dtype: str
    datasheet_bytes_per_s: float | None
    datasheet_flops_per_s: float | None
    measured_bytes_per_s: float | None
    measured_flops_per_s: float | None
    unmeasured_reason: str | None = None
    """Why the probe has no rate of this compute dtype; None where it has one, or where nobody can tell."""


@dataclass(frozen=True, slots=True)
class MeasuredMachine:
    """What the walk needs to know about the hardware.

    Attributes:
        found: the device that the engine ran on, as its vendor's library describes it.
        device: of the catalogue, or made of the probe.
        in_catalogue: whether its datasheet is known; only then there are datasheet peaks, prices and power limits.
        probe: None for a machine that was only named.
        gpus: numbers of the GPUs that the engine ran on, among those that this process sees.
    """

    machine: Machine
    found: FoundDevice
    device: Device
    in_catalogue: bool
    probe: Probe | None
    num_devices: int
    gpus: tuple[int, ...] = ()

    def peaks(self, compute_dtype: str) -> Peaks:
        """Peaks that belong to this compute dtype."""
        datasheet_flops_per_s = None
        if self.in_catalogue:
            try:
                datasheet_flops_per_s = self.device.peak_flops(compute_dtype)
            except MissingPeakError:
                datasheet_flops_per_s = None
        return Peaks(
            compute_dtype=compute_dtype,
            datasheet_bytes_per_s=self.device.peak_bytes_per_s.value if self.in_catalogue else None,
            datasheet_flops_per_s=datasheet_flops_per_s,
            measured_bytes_per_s=self.probe.copy_bytes_per_s if self.probe else None,
            measured_flops_per_s=self.probe.gemm_flops_per_s.get(compute_dtype) if self.probe else None,
            unmeasured_reason=self.probe.gemm_missing.get(compute_dtype) if self.probe else None,
        )

    def record(self, compute_dtype: str) -> HardwareRecord:
        """For the result."""
        peaks = self.peaks(compute_dtype)
        found = self.found
        return HardwareRecord(
            device=self.device.id,
            device_name=found.name,
            num_devices=self.num_devices,
            memory_bytes=found.memory_bytes,
            host_cpu=self.machine.cpu_model,
            host_cores=self.machine.cores,
            host_memory_bytes=self.machine.dram_bytes,
            driver=found.driver,
            datasheet_peak_bytes_per_s=peaks.datasheet_bytes_per_s,
            datasheet_peak_flops_per_s=peaks.datasheet_flops_per_s,
            measured_peak_bytes_per_s=peaks.measured_bytes_per_s,
            measured_peak_flops_per_s=peaks.measured_flops_per_s,
            peak_dtype=compute_dtype,
            probe=self.probe.as_json() if self.probe else {},
        )


def identify_machine(
    machine: Machine,
    found: FoundDevice,
    probe: Probe,
    *,
    asked: str | None,
    own: OwnFigures | None = None,
    num_devices: int = 1,
) -> MeasuredMachine:
    """The device that was measured, from the catalogue where it is known.

    Args:
        machine: as the vendors' libraries see it.
        found: the device that the engine ran on (`moe_cap.measure.placement`).
        probe: of that device.
        asked: device that the submission wants, None for any.
        own: the operator's prices and power, in place of the catalogue's.
        num_devices: of that kind, which the engine runs on.

    Raises:
        InvalidRunError: it ran on another device than was asked for, or the probe is of another one.
    """
    _refuse_foreign_probe(machine, found, probe)
    in_catalogue = found.device_id is not None and found.device_id != CPU_PROBED
    device = find_device(found.device_id or "") if in_catalogue else _from_probe(found, probe)
    if own is not None:
        device = own.onto(device)
    known = MeasuredMachine(machine, found, device, in_catalogue=in_catalogue, probe=probe, num_devices=num_devices)
    if asked is not None and asked != known.device.id:
        raise InvalidRunError(f"{asked} was asked for, the engine ran on {known.device.id} ({found.name})")
    return known


def name_machine(device_id: str, num_devices: int, own: OwnFigures | None = None) -> MeasuredMachine:
    """A machine that cannot be looked at from here: what its owner says it is, with the catalogue's peaks.

    Raises:
        UnknownHardwareError: no device of this id.
    """
    device = find_device(device_id)
    found = FoundDevice(device.id, None, device.vendor, device.name, None, None, None)
    machine = Machine((found,), None, None, None, None, None, None, os="", architecture="")
    return MeasuredMachine(machine, found, own.onto(device) if own else device, True, None, num_devices)


def _refuse_foreign_probe(machine: Machine, found: FoundDevice, probe: Probe) -> None:
    """Libraries spell the name of one device differently; one spelling holds the other."""
    if found.device_id == CPU_PROBED and machine.cpu_model is None:
        return  # this kernel has no name for its processor
    told, probed = found.name.lower(), probe.device.lower()
    if told not in probed and probed not in told:
        raise InvalidRunError(f"the engine ran on {found.name}, the probe is of {probe.device}: the peaks are not its")


def _from_probe(found: FoundDevice, probe: Probe) -> Device:
    cpu = found.device_id == CPU_PROBED
    return probed_device(
        CPU_PROBED if cpu else "gpu-probed",
        name=found.name,
        vendor=found.vendor,
        kind=DeviceKind.CPU if cpu else DeviceKind.GPU,
        as_of=probe.measured_at[:10],
        memory_bytes=found.memory_bytes,
        peak_bytes_per_s=probe.copy_bytes_per_s,
        peak_flops_per_s=probe.gemm_flops_per_s,
        host_link_bytes_per_s=probe.host_to_device_bytes_per_s,
    )
