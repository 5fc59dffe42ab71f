"""Look up a device, a host, a link or a region by its canonical id. The data lies in `data/*.yaml`, read once."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Protocol, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from moe_cap.errors import InvalidInputError, UnknownHardwareError
from moe_cap.hardware.rows import (
    CpuRow,
    DeviceRow,
    DramRow,
    LinkRow,
    Nouns,
    RegionRow,
    SourceRow,
    StorageRow,
)
from moe_cap.hardware.spec import CpuPart, Device, DramPart, Link, Region, StoragePart

DEVICE_FILES = ("nvidia_datacentre.yaml", "nvidia_desktop.yaml", "other_vendors.yaml")


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


RowT = TypeVar("RowT")
NounT = TypeVar("NounT", bound=_HasId)


@dataclass(frozen=True, slots=True)
class _Catalogue:
    devices: Mapping[str, Device]
    cpus: Mapping[str, CpuPart]
    dram: Mapping[str, DramPart]
    storage: Mapping[str, StoragePart]
    links: Mapping[str, Link]
    regions: Mapping[str, Region]
    by_pci_id: Mapping[str, Device]
    by_library_name: Mapping[str, Device]


def read_data(name: str) -> object:
    """The parsed content of one file of `data/`."""
    text = (files("moe_cap.hardware") / "data" / name).read_bytes()
    # libyaml is ten times faster and not compiled in everywhere; both loaders build plain values only.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # noqa: S506 a safe loader


def parse_rows(kind: type[RowT], rows: object, *, where: str) -> RowT:
    """Check a part of a data file against its row type.

    Raises:
        InvalidInputError: names the file, the row and the key that does not hold.
    """
    try:
        return TypeAdapter(kind).validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(f"{where}: {place}: {first['msg']}") from error


def index_by_id(nouns: Iterable[NounT]) -> Mapping[str, NounT]:
    """By id, in order.

    Raises:
        InvalidInputError: an id stands twice.
    """
    index: dict[str, NounT] = {}
    for noun in nouns:
        if noun.id in index:
            raise InvalidInputError(f"the catalogue has {noun.id!r} twice")
        index[noun.id] = noun
    return MappingProxyType(index)


def _section(name: str, key: str, kind: type[RowT]) -> tuple[RowT, ...]:
    content = read_data(name)
    if not isinstance(content, dict) or key not in content:
        raise InvalidInputError(f"{name}: expected the key {key!r}")
    rows: tuple[RowT, ...] = parse_rows(tuple[kind, ...], content[key], where=name)  # type: ignore[valid-type]
    return rows


def _by_alias(devices: Iterable[Device], aliases: Callable[[Device], Iterable[str]]) -> Mapping[str, Device]:
    index: dict[str, Device] = {}
    for device in devices:
        for alias in aliases(device):
            if alias in index:
                raise InvalidInputError(f"{alias!r} means both {index[alias].id} and {device.id}")
            index[alias] = device
    return MappingProxyType(index)


@lru_cache(maxsize=1)
def _catalogue() -> _Catalogue:
    sources = parse_rows(dict[str, SourceRow], read_data("sources.yaml"), where="sources.yaml")
    bare = Nouns(sources, {})
    links = index_by_id(bare.link(row) for row in _section("links.yaml", "links", LinkRow))
    nouns = Nouns(sources, links)
    devices = index_by_id(nouns.device(row) for name in DEVICE_FILES for row in _section(name, "devices", DeviceRow))
    return _Catalogue(
        devices=devices,
        cpus=index_by_id(nouns.cpu(row) for row in _section("hosts.yaml", "cpus", CpuRow)),
        dram=index_by_id(nouns.dram(row) for row in _section("hosts.yaml", "dram", DramRow)),
        storage=index_by_id(nouns.storage(row) for row in _section("links.yaml", "storage", StorageRow)),
        links=links,
        regions=index_by_id(nouns.region(row) for row in _section("electricity.yaml", "regions", RegionRow)),
        by_pci_id=_by_alias(devices.values(), lambda device: device.pci_ids),
        by_library_name=_by_alias(devices.values(), lambda device: device.library_names),
    )


def _find(index: Mapping[str, NounT], wanted: str, what: str) -> NounT:
    if wanted in index:
        return index[wanted]
    near = difflib.get_close_matches(wanted.lower(), index, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else f"; known: {', '.join(index)}"
    raise UnknownHardwareError(f"no {what} {wanted!r} in the catalogue{hint}")


def all_devices() -> tuple[Device, ...]:
    """Every device of the catalogue."""
    return tuple(_catalogue().devices.values())


def all_cpus() -> tuple[CpuPart, ...]:
    """Every family of host processors."""
    return tuple(_catalogue().cpus.values())


def all_dram() -> tuple[DramPart, ...]:
    """Every kind of main memory."""
    return tuple(_catalogue().dram.values())


def all_storage() -> tuple[StoragePart, ...]:
    """Every kind of disk."""
    return tuple(_catalogue().storage.values())


def all_links() -> tuple[Link, ...]:
    """Every interconnect."""
    return tuple(_catalogue().links.values())


def all_regions() -> tuple[Region, ...]:
    """Every electricity region."""
    return tuple(_catalogue().regions.values())


def find_device(device_id: str) -> Device:
    """The device of this canonical id, e.g. `h100-sxm-80gb`.

    Raises:
        UnknownHardwareError: no such device; the message names the nearest ids.
    """
    return _find(_catalogue().devices, device_id, "device")


def find_cpu(cpu_id: str) -> CpuPart:
    """The host processor family of this id, e.g. `epyc-9004`.

    Raises:
        UnknownHardwareError: no such family; the message names the nearest ids.
    """
    return _find(_catalogue().cpus, cpu_id, "host processor")


def find_region(region_id: str) -> Region:
    """The electricity region of this id, e.g. `us-virginia`.

    Raises:
        UnknownHardwareError: no such region; the message names the nearest ids.
    """
    return _find(_catalogue().regions, region_id, "electricity region")


def identify_device(*, pci_id: str | None, library_name: str | None) -> Device | None:
    """The device that a vendor's library reports, by PCI id, else by exact product name; None when neither is known.

    Capacity and parts of names say nothing: drivers reserve different amounts, and "H100" is four products.
    """
    catalogue = _catalogue()
    if pci_id is not None and pci_id.lower() in catalogue.by_pci_id:
        return catalogue.by_pci_id[pci_id.lower()]
    return catalogue.by_library_name.get(library_name) if library_name is not None else None
