"""Devices, hosts and links, each number with its source; and what this machine has.

`find_device("h100-sxm-80gb")` answers from the catalogue (`data/*.yaml`), `detect_machine()` asks the vendors' own
libraries.
"""

from moe_cap.hardware.catalogue import (
    all_cpus,
    all_devices,
    all_dram,
    all_links,
    all_regions,
    all_storage,
    find_cpu,
    find_device,
    find_region,
    identify_device,
)
from moe_cap.hardware.detect import FoundDevice, Machine, detect_machine
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
    probed_device,
)

__all__ = [
    "COMPUTE_DTYPES",
    "Cell",
    "Confidence",
    "Conflict",
    "CpuPart",
    "Device",
    "DeviceClass",
    "DeviceKind",
    "DramPart",
    "FoundDevice",
    "Link",
    "Machine",
    "Region",
    "RentalBasis",
    "RentalPrice",
    "StoragePart",
    "all_cpus",
    "all_devices",
    "all_dram",
    "all_links",
    "all_regions",
    "all_storage",
    "detect_machine",
    "find_cpu",
    "find_device",
    "find_region",
    "identify_device",
    "probed_device",
]
