"""The catalogue against the published dense peaks, and every cell against the rules of reference section 3."""

import re
from dataclasses import fields

import pytest

from moe_cap import hardware
from moe_cap.errors import InvalidInputError, MissingPeakError, MissingPriceError, UnknownHardwareError
from moe_cap.hardware import Cell, Confidence, Device, DeviceKind, RentalBasis
from moe_cap.hardware.catalogue import index_by_id, parse_rows
from moe_cap.hardware.rows import CellRow

# Dense bf16/fp16 peaks with fp32 accumulation, TFLOP/s, written down a second time from the references, so that a
# with-sparsity number in the catalogue (twice as large) has nothing to agree with.
DENSE_FP16_TFLOPS = {
    "a100-pcie-40gb": 312, "a100-pcie-80gb": 312, "a100-sxm-40gb": 312, "a100-sxm-80gb": 312, "a30-24gb": 165,
    "a10-24gb": 125, "a40-48gb": 149.7, "l4-24gb": 121, "l40s-48gb": 362, "h20-sxm-96gb": 148, "h100-pcie-80gb": 756.5,
    "h100-sxm-80gb": 989.5, "h100-nvl-94gb": 835, "h200-sxm-141gb": 989.5, "h200-nvl-141gb": 835, "gh200-96gb": 989.5,
    "gh200-144gb": 989.5, "b200-sxm-180gb": 2250, "gb200-nvl72": 2500, "b300-sxm-288gb": 2250, "gb300-nvl72": 2500,
    "rtx-a5000-24gb": 111.1, "rtx-a6000-48gb": 154.8, "rtx-6000-ada-48gb": 364.2,
    "rtx-pro-6000-workstation-96gb": 503.8,
    "rtx-pro-6000-server-96gb": 503.8, "rtx-pro-6000-max-q-96gb": 440, "rtx-3090-24gb": 71, "rtx-4090-24gb": 165.2,
    "rtx-5080-16gb": 112.6, "rtx-5090-32gb": 209.5, "dgx-spark-gb10": 125, "jetson-agx-orin-64gb": 42.5,
    "jetson-agx-thor-128gb": 258, "mi250x-128gb": 383, "mi300x-192gb": 1307.4, "mi325x-256gb": 1307.4,
    "mi350x-288gb": 2300, "mi355x-288gb": 2516.6, "gaudi2-96gb": 432, "gaudi3-oam-128gb": 1835,
    "arc-pro-b60-24gb": 98.3,
    "tpu-v5e": 197, "tpu-v5p": 459, "tpu-v6e": 918, "tpu7x": 2307, "m2-ultra-192gb": 27.2, "m3-ultra-512gb": 28.4,
    "m4-max-128gb": 18.4,
}  # fmt: skip
TOLERANCE = 1.05
DEVICES = hardware.all_devices()


def looks_sparse(device_id: str, flops_per_s: float) -> bool:
    return flops_per_s > TOLERANCE * DENSE_FP16_TFLOPS[device_id] * 1e12


def cells_of(device: Device) -> list[Cell]:
    values = [getattr(device, field.name) for field in fields(device)]
    return [value for value in values if isinstance(value, Cell)] + list(device.peak_flops_per_s.values())


def by_id(device: Device) -> str:
    return device.id


@pytest.mark.parametrize("device", DEVICES, ids=by_id)
def test_peaks_are_dense(device: Device) -> None:
    peak = device.peak_flops("bf16")
    assert not looks_sparse(device.id, peak)
    assert peak > DENSE_FP16_TFLOPS[device.id] * 1e12 / 1.1, "far below the published peak"


@pytest.mark.parametrize("device", DEVICES, ids=by_id)
def test_narrower_formats_are_no_more_than_their_width_faster(device: Device) -> None:
    # int8 reaches four times fp16 on GeForce, where fp16 with fp32 accumulation runs at half rate.
    limits = {"fp8": 2.1, "int8": 4.1, "fp4": 8.1, "fp16": 1.0, "fp32": 1.0}
    half = device.peak_flops("bf16")
    for dtype, cell in device.peak_flops_per_s.items():
        assert dtype == "bf16" or cell.value <= half * limits[dtype], f"{dtype} of {device.id}"


@pytest.mark.parametrize(
    ("device_id", "with_sparsity"), [("a100-sxm-80gb", 624), ("h100-sxm-80gb", 1979), ("rtx-a6000-48gb", 309.7)]
)
def test_peaks_with_sparsity_would_be_rejected(device_id: str, with_sparsity: float) -> None:
    assert looks_sparse(device_id, with_sparsity * 1e12)
    conflicts = hardware.find_device(device_id).peak_flops_per_s["bf16"].conflicts
    assert any(
        abs(conflict.value / 1e12 - with_sparsity) < 1 and "sparsity" in (conflict.note or "") for conflict in conflicts
    )


@pytest.mark.parametrize("device", DEVICES, ids=by_id)
def test_every_cell_names_its_source_date_and_confidence(device: Device) -> None:
    for cell in cells_of(device):
        assert len(cell.source) > 8
        assert re.match(r"^20\d\d(-\d\d){0,2}$", cell.as_of)
        assert isinstance(cell.confidence, Confidence)
        assert cell.value is None or cell.value > 0
        assert cell.value is not None or cell.note, "unknown needs its reason"
    for price in device.rental:
        assert price.usd_per_hour > 0
        assert price.source
        assert re.match(r"^20\d\d", price.as_of)


@pytest.mark.parametrize("device", DEVICES, ids=by_id)
def test_numbers_have_the_right_order_of_magnitude(device: Device) -> None:
    assert 8e9 < device.memory_bytes.value < 1e12
    assert 1e11 < device.peak_bytes_per_s.value < 2e13
    assert device.tdp_w.value is None or 30 < device.tdp_w.value < 2000
    assert device.price_usd.value is None or 100 < device.price_usd.value < 1e5
    for cell in (device.memory_bytes, device.peak_bytes_per_s):
        for conflict in cell.conflicts:
            assert 0.7 < conflict.value / cell.value < 1.3, "a conflict in another unit"


def test_the_catalogue_holds_what_the_reference_lists() -> None:
    assert set(DENSE_FP16_TFLOPS) == {device.id for device in DEVICES}
    assert {cpu.id for cpu in hardware.all_cpus()} >= {
        "epyc-7003",
        "epyc-9004",
        "epyc-9005",
        "xeon-4",
        "xeon-5",
        "xeon-6900p",
        "grace",
    }
    assert {device.vendor for device in DEVICES} == {"NVIDIA", "AMD", "Intel", "Google", "Apple"}


def test_unverified_numbers_are_marked() -> None:
    assert hardware.find_device("h100-nvl-94gb").peak_bytes_per_s.confidence is Confidence.UNVERIFIED
    assert hardware.find_device("h100-sxm-80gb").peak_bytes_per_s.confidence is Confidence.REPOSITORY
    assert hardware.find_device("tpu7x").peak_bytes_per_s.confidence is Confidence.VENDOR


def test_ids_are_canonical_and_unique() -> None:
    for nouns in (DEVICES, hardware.all_cpus(), hardware.all_links(), hardware.all_regions(), hardware.all_storage()):
        ids = [noun.id for noun in nouns]
        assert len(set(ids)) == len(ids)
        assert all(re.match(r"^[a-z0-9]+(-[a-z0-9]+)*$", noun_id) for noun_id in ids)
    with pytest.raises(InvalidInputError, match="twice"):
        index_by_id([DEVICES[0], DEVICES[0]])


def test_host_bandwidth_is_channels_times_transfers() -> None:
    for cpu in hardware.all_cpus():
        if cpu.memory_channels is not None:
            assert cpu.peak_bytes_per_s.value == pytest.approx(
                cpu.memory_channels * cpu.memory_transfers_per_s.value * 8
            )


def test_links_are_one_direction() -> None:
    h100 = hardware.find_device("h100-sxm-80gb")
    assert h100.link_bytes_per_s.value == 450e9
    assert h100.host_link_bytes_per_s.value == 64e9
    assert hardware.find_device("h100-pcie-80gb").link_bytes_per_s.value == 64e9


def test_capacities_of_one_product_agree_whatever_unit_they_were_printed_in() -> None:
    cell = hardware.find_device("b300-sxm-288gb").memory_bytes
    assert cell.conflicts[0].value == pytest.approx(cell.value, rel=0.01), "268 GiB and 288.4 GB are the same memory"


def test_unknown_device_names_the_nearest_ids() -> None:
    with pytest.raises(UnknownHardwareError, match="h100-sxm-80gb"):
        hardware.find_device("H100-SXM")


def test_missing_peak_is_an_error_and_says_what_there_is() -> None:
    with pytest.raises(MissingPeakError, match=r"no fp8 peak .*bf16"):
        hardware.find_device("a100-sxm-80gb").peak_flops("fp8")
    with pytest.raises(MissingPeakError, match="activations"):
        hardware.find_device("h100-sxm-80gb").peak_flops("int4")


def test_missing_price_is_an_error_and_says_why() -> None:
    with pytest.raises(MissingPriceError, match="owner_cost, reserved"):
        hardware.find_device("b300-sxm-288gb").rental_price(RentalBasis.SPOT)


def test_the_newest_price_of_a_basis_is_taken() -> None:
    assert hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.RESERVED).usd_per_hour == 2.00
    assert hardware.find_device("a100-sxm-80gb").rental_price(RentalBasis.ON_DEMAND).usd_per_hour == 2.21


def test_a_cell_without_value_or_reason_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="says why"):
        Cell(None, "somebody", "2026", Confidence.VENDOR)
    with pytest.raises(InvalidInputError, match="positive"):
        Cell(0.0, "somebody", "2026", Confidence.VENDOR)


def test_a_mistyped_key_of_the_data_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"x\.yaml: nte: Extra inputs"):
        parse_rows(CellRow, {"value": 1, "from": "aic", "nte": "about"}, where="x.yaml")


def test_a_probed_device_answers_like_one_of_the_catalogue() -> None:
    device = hardware.probed_device(
        "cpu-probed", name="Some CPU", vendor="X", kind=DeviceKind.CPU, as_of="2026-11-22",
        memory_bytes=24e9, peak_bytes_per_s=20e9, peak_flops_per_s={"fp32": 1e11},
    )  # fmt: skip
    assert device.peak_flops("fp32") == 1e11
    assert device.peak_bytes_per_s.confidence is Confidence.MEASURED
    assert device.price_usd.value is None
    with pytest.raises(MissingPeakError):
        device.peak_flops("bf16")


def test_electricity_prices_have_a_region_and_a_source() -> None:
    assert hardware.find_region("us-virginia").usd_per_kwh.value == 0.0892
    assert hardware.find_region("fr").gco2_per_kwh.value < hardware.find_region("in").gco2_per_kwh.value
    with pytest.raises(UnknownHardwareError, match="region"):
        hardware.find_region("atlantis")
