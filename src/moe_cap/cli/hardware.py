"""`moe-cap hardware`: the catalogue, with the source of every cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer

from moe_cap.cli.output import AsJson, print_json, print_table
from moe_cap.hardware import Cell, Device, all_devices, detect_machine, find_device

CELLS = (
    "memory_bytes", "peak_bytes_per_s", "link_bytes_per_s", "host_link_bytes_per_s", "tdp_w", "all_in_power_w",
    "price_usd",
)  # fmt: skip


def run(
    device_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this device with its sources.")] = None,
    detect: Annotated[bool, typer.Option("--detect", help="Show what this machine has.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the known devices, show one with its sources, or say what this machine has."""
    if detect:
        _show_machine(as_json)
    elif device_id is None:
        _show_all(as_json)
    else:
        _show_one(find_device(device_id), as_json)


def _show_all(as_json: bool) -> None:
    devices = all_devices()
    if as_json:
        print_json([as_document(device) for device in devices])
        return
    rows = [
        (
            device.id, device.name, _scaled(device.memory_bytes, 1e9), _scaled(device.peak_bytes_per_s, 1e9),
            _scaled(device.peak_flops_per_s.get("bf16"), 1e12), device.tdp_w.value, device.price_usd.value,
        )
        for device in devices
    ]  # fmt: skip
    print_table("", ("id", "name", "GB", "GB/s", "dense bf16 TFLOP/s", "W", "USD"), rows)


def _show_one(device: Device, as_json: bool) -> None:
    if as_json:
        print_json(as_document(device))
        return
    rows = [
        (name, cell.value, cell.confidence.value, cell.as_of, cell.source, cell.note or "")
        for name, cell in cells(device)
    ]
    print_table(f"{device.id}: {device.name}", ("quantity", "value", "confidence", "as of", "source", "note"), rows)
    if device.rental:
        prices = [(p.basis.value, p.usd_per_hour, p.as_of, p.source) for p in device.rental]
        print_table("rental", ("basis", "USD/h", "as of", "source"), prices)


def _show_machine(as_json: bool) -> None:
    machine = detect_machine()
    if as_json:
        print_json(asdict(machine))
        return
    rows = [
        (d.device_id or "not in the catalogue", d.name, d.memory_bytes, d.driver or d.reason or "")
        for d in machine.devices
    ]
    print_table(f"{machine.cpu_model}, {machine.os}", ("id", "name", "bytes", "driver"), rows)


def cells(device: Device) -> Iterator[tuple[str, Cell]]:
    """Every number of a device with its name."""
    yield from ((name, getattr(device, name)) for name in CELLS)
    yield from ((f"peak_flops_per_s.{dtype}", cell) for dtype, cell in device.peak_flops_per_s.items())


def as_document(device: Device) -> dict[str, Any]:
    """A device as JSON: every cell with value, source, date, confidence, note and conflicts."""
    return {
        "id": device.id,
        "name": device.name,
        "vendor": device.vendor,
        "kind": device.kind,
        "device_class": device.device_class,
        **{name: asdict(getattr(device, name)) for name in CELLS},
        "peak_flops_per_s": {dtype: asdict(cell) for dtype, cell in device.peak_flops_per_s.items()},
        "rental": [asdict(price) for price in device.rental],
        "pci_ids": device.pci_ids,
        "library_names": device.library_names,
    }


def _scaled(cell: Cell | None, unit: float) -> float | None:
    return None if cell is None or cell.value is None else cell.value / unit
