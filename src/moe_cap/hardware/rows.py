"""The YAML of `data/` as written: checked key by key, then turned into nouns with SI units.

A row says where each number comes from (`from:`, a key of sources.yaml); its confidence and date are the source's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from moe_cap.errors import InvalidInputError
from moe_cap.hardware.spec import (
    COMPUTE_DTYPES,
    Cell,
    Confidence,
    Conflict,
    CpuPart,
    Device,
    DeviceClass,
    DeviceKind,
    DramPart,
    Link,
    Region,
    RentalBasis,
    RentalPrice,
    StoragePart,
)

UNITS = {"B": 1.0, "GB": 1e9, "MiB": 2.0**20, "GiB": 2.0**30}
TRUST = list(Confidence)
NOT_PUBLISHED = {"value": None, "unknown": "no source publishes it", "note": None, "conflicts": ()}

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Day = Annotated[str, BeforeValidator(str)]


class Row(BaseModel):
    """Base of all rows: a key that is not known is a typing mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class SourceRow(Row):
    """One place that was read."""

    title: str
    as_of: Day
    confidence: Confidence
    url: str | None = None


class ConflictRow(Row):
    """Another value for the same cell."""

    value: float
    sources: Names = Field(alias="from")
    unit: str | None = None
    note: str | None = None


class CellRow(Row):
    """One number, or the reason why there is none."""

    value: float | None = None
    unknown: str | None = None
    sources: Names = Field(alias="from")
    unit: str | None = None
    confidence: Confidence | None = None
    note: str | None = None
    conflicts: tuple[ConflictRow, ...] = ()


class LinkUseRow(Row):
    """Which link a device has."""

    link: str | None = None
    unknown: str | None = None
    sources: Names = Field(alias="from")


class RentalRow(Row):
    """One hourly price."""

    basis: RentalBasis
    usd_per_hour: float = Field(gt=0)
    sources: Names = Field(alias="from")
    note: str | None = None


class DeviceRow(Row):
    """One accelerator."""

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str
    vendor: str
    kind: DeviceKind
    device_class: DeviceClass = Field(alias="class")
    pci_ids: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")], ...] = ()
    library_names: tuple[str, ...] = ()
    memory: CellRow
    gb_per_s: CellRow
    peak_tflops: dict[str, CellRow]
    peer_link: LinkUseRow | None = None
    host_link: LinkUseRow
    tdp_w: CellRow
    all_in_power_w: CellRow | None = None
    price_usd: CellRow
    rental: tuple[RentalRow, ...] = ()


class CpuRow(Row):
    """One family of host processors."""

    id: str
    name: str
    vendor: str
    memory_channels: int | None
    mt_per_s: CellRow
    gb_per_s: CellRow
    tdp_w: CellRow
    price_usd: CellRow
    example: str | None


class DramRow(Row):
    """One kind of main memory."""

    id: str
    name: str
    usd_per_gb: CellRow


class StorageRow(Row):
    """One kind of disk."""

    id: str
    name: str
    gb_per_s: CellRow
    usd_per_gb: CellRow


class LinkRow(Row):
    """One interconnect."""

    id: str
    name: str
    gb_per_s: CellRow


class RegionRow(Row):
    """One electricity region."""

    id: str
    name: str
    usd_per_kwh: CellRow
    gco2_per_kwh: CellRow


@dataclass(frozen=True)
class Nouns:
    """Turns rows into nouns; knows the sources and, for devices, the links."""

    sources: Mapping[str, SourceRow]
    links: Mapping[str, Link]

    def cell(self, row: CellRow, scale: float) -> Cell:
        """A row's number times `scale`; its unit, where it names one, replaces the scale."""
        first = self._source(row.sources[0])
        if (row.value is None) == (row.unknown is None):
            raise InvalidInputError(f"a cell has either `value` or `unknown` (from {row.sources[0]})")
        return Cell(
            value=None if row.value is None else row.value * UNITS.get(row.unit or "", scale),
            source="; ".join(self._source(key).title for key in row.sources),
            as_of=first.as_of,
            confidence=row.confidence or first.confidence,
            url=first.url,
            note=row.unknown or row.note,
            conflicts=tuple(
                Conflict(
                    value=other.value * UNITS.get(other.unit or row.unit or "", scale),
                    source="; ".join(self._source(key).title for key in other.sources),
                    note=other.note,
                )
                for other in row.conflicts
            ),
        )

    def link(self, row: LinkRow) -> Link:
        """An interconnect, bytes/s."""
        return Link(row.id, row.name, self.cell(row.gb_per_s, 1e9))

    def device(self, row: DeviceRow) -> Device:
        """An accelerator; where no peer link is written, neighbours are reached through the host link."""
        host = self._link_cell(row.host_link)
        all_in = row.all_in_power_w or row.tdp_w.model_copy(update=NOT_PUBLISHED)
        return Device(
            id=row.id,
            name=row.name,
            vendor=row.vendor,
            kind=row.kind,
            device_class=row.device_class,
            memory_bytes=self.cell(row.memory, 1.0),
            peak_bytes_per_s=self.cell(row.gb_per_s, 1e9),
            peak_flops_per_s=MappingProxyType(self._peaks(row)),
            link_bytes_per_s=self._link_cell(row.peer_link) if row.peer_link else host,
            host_link_bytes_per_s=host,
            tdp_w=self.cell(row.tdp_w, 1.0),
            all_in_power_w=self.cell(all_in, 1.0),
            price_usd=self.cell(row.price_usd, 1.0),
            rental=tuple(self._rental(price) for price in row.rental),
            pci_ids=row.pci_ids,
            library_names=row.library_names,
        )

    def cpu(self, row: CpuRow) -> CpuPart:
        """A host processor, per socket."""
        return CpuPart(
            id=row.id,
            name=row.name,
            vendor=row.vendor,
            memory_channels=row.memory_channels,
            memory_transfers_per_s=self.cell(row.mt_per_s, 1e6),
            peak_bytes_per_s=self.cell(row.gb_per_s, 1e9),
            tdp_w=self.cell(row.tdp_w, 1.0),
            price_usd=self.cell(row.price_usd, 1.0),
            example=row.example,
        )

    def dram(self, row: DramRow) -> DramPart:
        """A kind of main memory."""
        return DramPart(row.id, row.name, self.cell(row.usd_per_gb, 1.0))

    def storage(self, row: StorageRow) -> StoragePart:
        """A kind of disk."""
        return StoragePart(row.id, row.name, self.cell(row.gb_per_s, 1e9), self.cell(row.usd_per_gb, 1.0))

    def region(self, row: RegionRow) -> Region:
        """An electricity region."""
        return Region(row.id, row.name, self.cell(row.usd_per_kwh, 1.0), self.cell(row.gco2_per_kwh, 1.0))

    def _source(self, key: str) -> SourceRow:
        if key not in self.sources:
            raise InvalidInputError(f"sources.yaml has no {key!r}")
        return self.sources[key]

    def _peaks(self, row: DeviceRow) -> dict[str, Cell]:
        peaks = {dtype: self.cell(cell, 1e12) for key, cell in row.peak_tflops.items() for dtype in key.split("+")}
        unknown = sorted(set(peaks) - set(COMPUTE_DTYPES))
        if unknown:
            raise InvalidInputError(f"{row.id}: {', '.join(unknown)} is no compute dtype ({', '.join(COMPUTE_DTYPES)})")
        return peaks

    def _rental(self, row: RentalRow) -> RentalPrice:
        source = self._source(row.sources[0])
        return RentalPrice(
            row.basis, row.usd_per_hour, source.title, source.as_of, source.confidence, source.url, row.note
        )

    def _link_cell(self, row: LinkUseRow) -> Cell:
        """The link's rate, trusted no further than the weaker of "it has this link" and "this link is that fast"."""
        first = self._source(row.sources[0])
        if row.link is None:
            return Cell(None, first.title, first.as_of, first.confidence, first.url, note=row.unknown)
        if row.link not in self.links:
            raise InvalidInputError(f"links.yaml has no {row.link!r}")
        link = self.links[row.link]
        rate = link.peak_bytes_per_s
        return Cell(
            value=rate.value,
            source=f"{first.title} (which link); {rate.source} (its rate)",
            as_of=min(first.as_of, rate.as_of),
            confidence=max(first.confidence, rate.confidence, key=TRUST.index),
            url=rate.url,
            note=f"{link.name}; {rate.note}" if rate.note else link.name,
            conflicts=rate.conflicts,
        )
