"""What a device is: every number in a `Cell` that knows where it was read.

Units are SI: bytes, bytes per second, FLOP per second, watts, US dollars. Peaks are dense (no 2:4 sparsity) and belong
to the *compute* dtype; what has no cell is not supported by the device, and asking for it is an error, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from moe_cap.errors import InvalidInputError, MissingPeakError, MissingPriceError

COMPUTE_DTYPES = ("fp32", "fp16", "bf16", "fp8", "int8", "fp4")
"""Formats that a matrix unit multiplies in. mxfp4 or int4 *weights* with bf16 activations compute in bf16."""


class Confidence(StrEnum):
    """How far a number can be trusted, best first."""

    MEASURED = "measured"
    VENDOR = "vendor"
    REPOSITORY = "repository"
    SECONDARY = "secondary"
    DERIVED = "derived"
    UNVERIFIED = "unverified"


class DeviceKind(StrEnum):
    """What kind of part the weights are read by."""

    GPU = "gpu"
    CPU = "cpu"
    TPU = "tpu"
    SOC = "soc"


class DeviceClass(StrEnum):
    """Where such a device stands; the classes of the deployment chart [P6 Figure 4]."""

    EDGE = "edge"
    DESKTOP = "desktop"
    WORKSTATION = "workstation"
    DATACENTRE = "datacentre"
    RACK = "rack"
    HOST = "host"


class RentalBasis(StrEnum):
    """What an hourly price pays for. `owner_cost` is an owner's own total cost per hour, not a price on offer."""

    ON_DEMAND = "on_demand"
    RESERVED = "reserved"
    SPOT = "spot"
    OWNER_COST = "owner_cost"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Another value that a source gives for the same cell, in the cell's unit."""

    value: float
    source: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the catalogue.

    Attributes:
        value: in SI units; None when it is not known, and then `note` says why.
        source: readable source(s), the first is where the value was taken from.
        as_of: date of the source, `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
        confidence: see `Confidence`.
        url: address of the source where it has one.
        note: what a reader must know beside the number.
        conflicts: other published values for the same thing.
    """

    value: float | None
    source: str
    as_of: str
    confidence: Confidence
    url: str | None = None
    note: str | None = None
    conflicts: tuple[Conflict, ...] = ()

    def __post_init__(self) -> None:
        if self.value is None and not self.note:
            raise InvalidInputError(f"a cell without a value needs a note that says why (source: {self.source})")
        if self.value is not None and not 0 < self.value < float("inf"):
            raise InvalidInputError(f"a cell is a positive number or unknown, not {self.value!r} ({self.source})")


@dataclass(frozen=True, slots=True)
class RentalPrice:
    """Price of one device for one hour, USD, on one basis at one date."""

    basis: RentalBasis
    usd_per_hour: float
    source: str
    as_of: str
    confidence: Confidence
    url: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator (or one package of a system on a chip), as bought.

    Attributes:
        id: canonical, lower case, e.g. `a100-pcie-80gb`.
        memory_bytes: memory that the device itself reads weights from.
        peak_bytes_per_s: datasheet bandwidth of that memory.
        peak_flops_per_s: dense peak by compute dtype (FLOP/s; int8: OP/s).
        link_bytes_per_s: to a neighbour device, one direction.
        host_link_bytes_per_s: to the host's memory, one direction.
        tdp_w: board or module power limit.
        all_in_power_w: the device's share of the whole server and its cooling, where somebody publishes it.
        price_usd: indicative purchase price of one.
        pci_ids: `vendor:device`, lower-case hex, that mean exactly this device.
        library_names: names that the vendor's library gives to exactly this device.
    """

    id: str
    name: str
    vendor: str
    kind: DeviceKind
    device_class: DeviceClass
    memory_bytes: Cell
    peak_bytes_per_s: Cell
    peak_flops_per_s: Mapping[str, Cell]
    link_bytes_per_s: Cell
    host_link_bytes_per_s: Cell
    tdp_w: Cell
    all_in_power_w: Cell
    price_usd: Cell
    rental: tuple[RentalPrice, ...] = ()
    pci_ids: tuple[str, ...] = ()
    library_names: tuple[str, ...] = ()

    def peak_flops(self, compute_dtype: str) -> float:
        """Dense peak of this compute dtype, FLOP/s.

        Raises:
            MissingPeakError: the device has no such matrix unit, or nobody publishes its rate.
        """
        cell = self.peak_flops_per_s.get(compute_dtype)
        if cell is not None and cell.value is not None:
            return cell.value
        has = ", ".join(name for name, peak in self.peak_flops_per_s.items() if peak.value is not None) or "none"
        hint = "" if compute_dtype in COMPUTE_DTYPES else "; name the dtype that the activations are multiplied in"
        raise MissingPeakError(f"{self.id} has no {compute_dtype} peak (it has: {has}){hint}")

    def rental_price(self, basis: RentalBasis) -> RentalPrice:
        """The newest hourly price on this basis.

        Raises:
            MissingPriceError: the catalogue has none on this basis; the message names the ones that it has.
        """
        found = [price for price in self.rental if price.basis is basis]
        if not found:
            has = ", ".join(sorted({price.basis.value for price in self.rental})) or "none"
            raise MissingPriceError(f"{self.id} has no {basis.value} price (it has: {has}); give one per hour")
        return max(found, key=lambda price: price.as_of)


@dataclass(frozen=True, slots=True)
class CpuPart:
    """A family of host processors; bandwidth and power are per socket."""

    id: str
    name: str
    vendor: str
    memory_channels: int | None
    memory_transfers_per_s: Cell
    peak_bytes_per_s: Cell
    tdp_w: Cell
    price_usd: Cell
    example: str | None
    """The part that the price belongs to."""


@dataclass(frozen=True, slots=True)
class DramPart:
    """A kind of main memory."""

    id: str
    name: str
    usd_per_gb: Cell


@dataclass(frozen=True, slots=True)
class StoragePart:
    """A kind of solid-state disk; sequential read."""

    id: str
    name: str
    peak_bytes_per_s: Cell
    usd_per_gb: Cell


@dataclass(frozen=True, slots=True)
class Link:
    """An interconnect; one direction, per device."""

    id: str
    name: str
    peak_bytes_per_s: Cell


@dataclass(frozen=True, slots=True)
class Region:
    """Where the electricity comes from."""

    id: str
    name: str
    usd_per_kwh: Cell
    gco2_per_kwh: Cell


def probed_device(
    device_id: str,
    *,
    name: str,
    vendor: str,
    kind: DeviceKind,
    as_of: str,
    memory_bytes: float | None,
    peak_bytes_per_s: float | None,
    peak_flops_per_s: Mapping[str, float],
    host_link_bytes_per_s: float | None = None,
) -> Device:
    """A device that the catalogue does not know, served from what a probe measured on it.

    Power and price stay unknown: a probe cannot see them.
    """

    def measured(value: float | None) -> Cell:
        why = None if value is not None else "the probe did not measure it"
        return Cell(value, "probe of this machine", as_of, Confidence.MEASURED, note=why)

    unknown = Cell(None, "probe of this machine", as_of, Confidence.MEASURED, note="a probe cannot see it")
    return Device(
        id=device_id,
        name=name,
        vendor=vendor,
        kind=kind,
        device_class=DeviceClass.HOST if kind is DeviceKind.CPU else DeviceClass.WORKSTATION,
        memory_bytes=measured(memory_bytes),
        peak_bytes_per_s=measured(peak_bytes_per_s),
        peak_flops_per_s=MappingProxyType({dtype: measured(rate) for dtype, rate in peak_flops_per_s.items()}),
        link_bytes_per_s=unknown,
        host_link_bytes_per_s=measured(host_link_bytes_per_s),
        tdp_w=unknown,
        all_in_power_w=unknown,
        price_usd=unknown,
    )
