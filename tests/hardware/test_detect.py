"""Detection against stand-ins for the vendors' libraries that answer as the real ones do."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moe_cap.hardware import all_devices, detect_machine, identify_device
from moe_cap.hardware.detect import ask_amdsmi, ask_nvml, parse_cpuinfo, parse_meminfo, read_amd, read_nvidia

X86 = "\n\n".join(
    f"processor\t: {thread}\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9654 96-Core Processor\n"
    f"physical id\t: {socket}\ncore id\t: {core}\nflags\t: a b\n"
    for thread, (socket, core) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)])
)
ARM = "processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\n\nprocessor\t: 1\nCPU implementer\t: 0x41\n"


class NvmlError(Exception):
    pass


def nvml(cards: list[tuple[str, int, int]], *, vgpu: bool = False, mig: bool = False, starts: bool = True) -> Any:
    """The module pynvml with these cards: product name, PCI device id, bytes of memory."""

    def init() -> None:
        if not starts:
            raise NvmlError("Driver Not Loaded")

    def mig_mode(card: tuple[str, int, int]) -> list[int]:
        if "GeForce" in card[0]:
            raise NvmlError("Not Supported")
        return [int(mig), int(mig)]

    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: b"580.95.05",
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: cards[index],
        nvmlDeviceGetName=lambda card: card[0],
        nvmlDeviceGetUUID=lambda card: f"GPU-{cards.index(card)}",
        nvmlDeviceGetPciInfo=lambda card: SimpleNamespace(pciDeviceId=card[1] << 16 | 0x10DE),
        nvmlDeviceGetMemoryInfo=lambda card: SimpleNamespace(total=card[2]),
        nvmlDeviceGetVirtualizationMode=lambda card: 2 if vgpu else 0,
        nvmlDeviceGetMigMode=mig_mode,
        nvmlDeviceGetEnforcedPowerLimit=lambda card: 650_500,
    )


def amdsmi(*, device_id: str = "0x74a1", partition: str = "SPX") -> Any:
    class AmdSmiError(Exception):
        pass

    return SimpleNamespace(
        AmdSmiException=AmdSmiError,
        amdsmi_init=lambda: None,
        amdsmi_shut_down=lambda: None,
        amdsmi_get_processor_handles=lambda: [object()],
        amdsmi_get_gpu_asic_info=lambda _: {
            "market_name": "AMD Instinct MI300X",
            "vendor_id": "0x1002",
            "device_id": device_id,
        },
        amdsmi_get_gpu_vram_info=lambda _: {"vram_size": 196592},
        amdsmi_get_gpu_driver_info=lambda _: {"driver_version": "6.14.5"},
        amdsmi_get_gpu_compute_partition=lambda _: partition,
    )


def test_a_card_is_known_by_its_pci_id_whatever_its_driver_calls_it() -> None:
    (found,) = ask_nvml(nvml([("Graphics Device", 0x2330, 85_520_809_984)]))
    assert found.device_id == "h100-sxm-80gb"
    assert found.pci_id == "10de:2330"
    assert found.driver == "580.95.05"
    assert found.memory_bytes == 85_520_809_984
    assert found.power_limit_w == 650.5


def test_a_card_is_known_by_its_exact_name_where_its_pci_id_is_not() -> None:
    (found,) = ask_nvml(nvml([("NVIDIA H100 80GB HBM3", 0xFFFF, 1)]))
    assert found.device_id == "h100-sxm-80gb"


def test_part_of_a_name_is_not_enough() -> None:
    (found,) = ask_nvml(nvml([("NVIDIA H100 80GB", 0xFFFF, 85_520_809_984)]))
    assert found.device_id is None
    assert "not in the catalogue" in str(found.reason)


def test_capacity_says_nothing() -> None:
    devices = [
        ask_nvml(nvml([("NVIDIA A100-SXM4-40GB", 0x20B0, size)]))[0].device_id for size in (1, 42_297_786_368, 10**12)
    ]
    assert devices == ["a100-sxm-40gb"] * 3


@pytest.mark.parametrize(("share", "reason"), [({"vgpu": True}, "virtual GPU"), ({"mig": True}, "MIG")])
def test_a_share_of_a_card_is_not_the_card(share: dict[str, bool], reason: str) -> None:
    (found,) = ask_nvml(nvml([("NVIDIA A100-SXM4-80GB", 0x20B2, 1)], **share))
    assert found.device_id is None
    assert reason in str(found.reason)


def test_a_card_that_knows_no_mig_is_whole() -> None:
    (found,) = ask_nvml(nvml([("NVIDIA GeForce RTX 4090", 0x2684, 1)]))
    assert found.device_id == "rtx-4090-24gb"


def test_every_card_is_reported() -> None:
    found = ask_nvml(nvml([("NVIDIA L4", 0x27B8, 1)] * 3 + [("NVIDIA X", 0x0001, 1)]))
    assert [device.device_id for device in found] == ["l4-24gb"] * 3 + [None]


def test_a_library_without_a_driver_finds_nothing() -> None:
    assert ask_nvml(nvml([], starts=False)) == ()


def test_amd_cards_are_known_and_partitions_are_not() -> None:
    (whole,) = ask_amdsmi(amdsmi())
    assert (whole.device_id, whole.pci_id, whole.memory_bytes) == ("mi300x-192gb", "1002:74a1", 196592 * 2**20)
    (slice_,) = ask_amdsmi(amdsmi(partition="CPX"))
    assert slice_.device_id is None
    assert "CPX" in str(slice_.reason)


def test_the_real_libraries_can_be_asked_on_any_machine(capsys: pytest.CaptureFixture[str]) -> None:
    for device in (*read_nvidia(), *read_amd()):
        assert device.vendor in {"NVIDIA", "AMD"}
    assert capsys.readouterr().out == ""


def test_a_machine_without_a_gpu_offers_its_processor(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(X86)
    (tmp_path / "meminfo").write_text("MemTotal:       1056306752 kB\nMemFree: 1 kB\n")
    machine = detect_machine(readers=[lambda: ()], proc=tmp_path)
    (device,) = machine.devices
    assert (device.device_id, device.name) == ("cpu-probed", "AMD EPYC 9654 96-Core Processor")
    assert (machine.sockets, machine.cores, machine.threads) == (2, 4, 8)
    assert machine.dram_bytes == device.memory_bytes == 1056306752 * 1024


def test_a_gpu_goes_before_the_processor(tmp_path: Path) -> None:
    machine = detect_machine(readers=[lambda: ask_nvml(nvml([("NVIDIA L4", 0x27B8, 1)]))], proc=tmp_path)
    assert [device.device_id for device in machine.devices] == ["l4-24gb"]
    assert machine.devices[0].uuid == "0"
    assert machine.processor.device_id == "cpu-probed"


def test_this_machine_is_read() -> None:
    machine = detect_machine()
    assert machine.devices
    assert machine.dram_bytes > 1e8
    assert machine.threads >= 1


def test_what_the_kernel_does_not_say_is_unknown() -> None:
    cpu = parse_cpuinfo(ARM)
    assert (cpu.threads, cpu.model, cpu.sockets, cpu.cores) == (2, None, None, None)
    assert parse_cpuinfo("").threads is None
    assert parse_meminfo("nothing: 1") is None
    assert parse_meminfo("MemTotal: 9 kB\nMemAvailable: 5 kB\n", "MemAvailable") == 5 * 1024


def test_pci_ids_and_names_lead_back_to_their_device() -> None:
    for device in all_devices():
        for pci_id in device.pci_ids:
            assert identify_device(pci_id=pci_id.upper(), library_name=None) is device
        for name in device.library_names:
            assert identify_device(pci_id=None, library_name=name) is device
    assert identify_device(pci_id=None, library_name=None) is None


def test_importing_the_catalogue_asks_no_library() -> None:
    code = "import sys, moe_cap.hardware; sys.exit(', '.join({'pynvml', 'amdsmi', 'torch'} & set(sys.modules)) or None)"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2] / "src", capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
