from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from zeus.monitor.energy import Measurement

from moe_cap.errors import InvalidRunError
from moe_cap.hardware.detect import FoundDevice
from moe_cap.measure import matrix_products
from moe_cap.measure import probe as probing
from moe_cap.measure.matrix_products import PRODUCTS
from moe_cap.measure.power import PowerMeter, open_power_meter
from moe_cap.measure.probe import best_of, probe_machine


class Counters:
    """What zeus gives: a measurement per window."""

    gpu_indices = (0,)
    cpu_indices = (0,)

    def __init__(self, measurement: Measurement) -> None:
        self.measurement, self.open = measurement, []
        self.contexts = 0

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        self.open.append(key)
        self.contexts += sync_execution

    def end_window(self, key: str, sync_execution: bool = True) -> Measurement:
        self.open.remove(key)
        self.contexts += sync_execution
        return self.measurement


def test_a_window_holds_every_counter_that_could_be_read() -> None:
    meter = PowerMeter(Counters(Measurement(2.0, {0: 100.0, 1: 50.0}, {0: 30.0}, None)), None)
    with meter.window() as window:
        pass
    assert window.energy is not None
    assert (window.energy.gpu_j, window.energy.cpu_j, window.energy.dram_j) == (150.0, 30.0, None)
    assert window.energy.total_j == 180.0
    assert window.energy.covers == "2 GPUs, CPU package"


def test_only_the_gpus_of_the_run_are_counted() -> None:
    meter = PowerMeter(Counters(Measurement(2.0, {0: 100.0, 1: 50.0, 2: 7.0}, {0: 30.0}, None)), None).only((0, 2))
    with meter.window() as window:
        pass
    assert window.energy is not None
    assert (window.energy.gpu_j, window.energy.covers) == (107.0, "2 GPUs, CPU package")
    assert window.energy.only(()).covers == "CPU package"


def test_a_run_whose_devices_have_no_counter_says_so() -> None:
    counters = Counters(Measurement(2.0, {0: 100.0}, None, None))
    counters.cpu_indices = ()
    meter = PowerMeter(counters, None)
    assert meter.only((0,)).reason is None
    assert "processor" in str(meter.only(()).reason)
    assert "GPU 3" in str(meter.only((3,)).reason)


def test_idle_power_is_energy_over_time() -> None:
    meter = PowerMeter(Counters(Measurement(2.0, {0: 100.0})), None)
    idle = meter.idle(sleep=lambda seconds: None)
    assert idle is not None
    assert idle.watts == 50.0


def test_a_window_is_closed_when_the_run_fails() -> None:
    counters = Counters(Measurement(1.0, {0: 1.0}))
    with pytest.raises(ZeroDivisionError), PowerMeter(counters, None).window():
        raise ZeroDivisionError
    assert counters.open == []


def test_a_window_opens_no_cuda_context_in_this_process() -> None:
    counters = Counters(Measurement(1.0, {0: 1.0}))
    with PowerMeter(counters, None).window():
        assert counters.open == ["timed"]
    assert counters.contexts == 0


def test_without_counters_energy_is_unknown_with_a_reason() -> None:
    meter = PowerMeter(None, "none here")
    with meter.window() as window:
        pass
    assert window.energy is None
    assert meter.idle(sleep=lambda seconds: pytest.fail("nothing to wait for")) is None


def test_this_machine_has_counters_or_a_reason() -> None:
    meter = open_power_meter()
    with meter.window() as window:
        sum(range(100_000))
    assert (window.energy is None) == (meter.reason is not None)


def test_the_probe_is_measured_once_on_a_quiet_machine(quick_probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    first = probe_machine("cpu", quick_probe)
    monkeypatch.setattr(probing, "measure", lambda *_: pytest.fail("measured again"))
    assert probe_machine("cpu", quick_probe) == first
    assert first.copy_bytes_per_s > 0
    assert set(first.gemm_flops_per_s) == {"fp32", "bf16", "int8"}
    assert set(first.gemm_missing) == {"fp16", "fp8", "fp4"}
    assert "a processor has no fp8 units" in first.gemm_missing["fp8"]
    assert (first.host_copy_bytes_per_s, first.host_copied_bytes) == (first.copy_bytes_per_s, first.copied_bytes)
    assert first.host_to_device_bytes_per_s is first.device_to_host_bytes_per_s is None, "no link to itself"
    (file,) = (quick_probe / "probe").iterdir()
    assert json.loads(file.read_text()) == first.as_json()


def test_a_probe_of_a_busy_machine_is_repeated_and_the_better_kept(
    quick_probe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing.os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    busy = probe_machine("cpu", quick_probe)
    better = replace(busy, copy_bytes_per_s=busy.copy_bytes_per_s * 2, gemm_flops_per_s={"fp32": 1.0}, busy_share=0.0)
    monkeypatch.setattr(probing, "measure", lambda *_: better)
    again = probe_machine("cpu", quick_probe)
    assert again.copy_bytes_per_s == better.copy_bytes_per_s
    assert again.gemm_flops_per_s == {"fp32": busy.gemm_flops_per_s["fp32"]}
    assert again == best_of(better, busy)


def fake_gpu(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> list[tuple[str, str, int]]:
    """A machine with a GPU on which every pair of memories has a rate of its own; the copies that were asked for."""
    rates = {("cuda:0", "cuda:0"): 1.5e12, ("cpu", "cpu"): 1e11, ("cpu", "cuda:0"): 5e10, ("cuda:0", "cpu"): 4e10}
    copies: list[tuple[str, str, int]] = []
    monkeypatch.setattr(probing, "_copy_rate", lambda *asked: copies.append(asked) or rates[asked[:2]])
    rates_by_name = {"fp32": 6e13, "fp16": 9e14, "bf16": 9e14, "fp8": 1.8e15, "int8": 1.7e15}
    monkeypatch.setattr(probing, "_gemm_rate", lambda _device, name, _side: rates_by_name[name])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.setattr(probing, "_free_bytes", lambda _device: free_bytes)
    monkeypatch.setattr(probing, "_last_level_cache_bytes", lambda: 2**29)
    monkeypatch.setattr(probing, "_name", lambda _device: "NVIDIA H200")
    return copies


def test_a_gpu_is_probed_with_its_host_and_both_ways_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = fake_gpu(monkeypatch, free_bytes=2**37)
    probe = probing.measure("cuda:0", "f")
    assert (probe.copy_bytes_per_s, probe.host_copy_bytes_per_s) == (3e12, 2e11), "read and written"
    assert (probe.host_to_device_bytes_per_s, probe.device_to_host_bytes_per_s) == (5e10, 4e10), "moved"
    assert probe.gemm_flops_per_s == {"fp32": 6e13, "fp16": 9e14, "bf16": 9e14, "fp8": 1.8e15, "int8": 1.7e15}
    assert set(probe.gemm_missing) == {"fp4"}
    assert (probe.copied_bytes, probe.host_copied_bytes) == (2**31, 2**30), "the host's buffers are twice its cache"
    assert {(source, target): size for source, target, size in copies} == {
        ("cuda:0", "cuda:0"): 2**31, ("cpu", "cpu"): 2**30, ("cpu", "cuda:0"): 2**30, ("cuda:0", "cpu"): 2**30,
    }  # fmt: skip


def test_how_busy_a_machine_is_is_asked_before_the_probe_makes_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = fake_gpu(monkeypatch, free_bytes=2**37)
    monkeypatch.setattr(probing, "busy_share", lambda: float(len(copies)))
    assert probing.measure("cuda:0", "f").busy_share == 0


def test_a_card_that_this_process_does_not_see_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidRunError, match="runs on cuda:4, torch sees 1 GPUs here"):
        probing.uuid_of("cuda:4")


def test_the_buffers_of_a_probe_fit_into_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, free_bytes=2**28)
    probe = probing.measure("cuda:0", "f")
    assert probe.copied_bytes == probe.host_copied_bytes == 2**26


def test_only_the_end_of_a_link_in_the_hosts_memory_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def buffer(_size: int, *, device: str, pin_memory: bool, **_: object) -> object:
        asked.append((device, pin_memory))
        return SimpleNamespace(copy_=lambda *_args, **_named: None)

    synchronised: list[str] = []
    cuda = SimpleNamespace(synchronize=synchronised.append)
    monkeypatch.setattr(probing, "torch", SimpleNamespace(ones=buffer, zeros=buffer, uint8=None, cuda=cuda))
    for source, target in (("cpu", "cuda:0"), ("cuda:0", "cpu"), ("cuda:0", "cuda:0"), ("cpu", "cpu")):
        probing._copy_rate(source, target, 1)
    assert asked == [
        ("cpu", True), ("cuda:0", False), ("cuda:0", False), ("cpu", True),
        ("cuda:0", False), ("cuda:0", False), ("cpu", False), ("cpu", False),
    ]  # fmt: skip
    assert synchronised == ["cuda:0"] * 3 * (probing.REPEATS + 1), "a copy within the host has nothing to wait for"


def test_the_better_of_each_direction_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, free_bytes=2**37)
    probe = probing.measure("cuda:0", "f")
    other = replace(probe, host_to_device_bytes_per_s=6e10, device_to_host_bytes_per_s=1e10, host_copy_bytes_per_s=1.0)
    best = best_of(probe, other)
    assert (best.host_to_device_bytes_per_s, best.device_to_host_bytes_per_s) == (6e10, 4e10)
    assert best.host_copy_bytes_per_s == 2e11


def test_another_number_of_threads_is_another_probe(quick_probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe_machine("cpu", quick_probe)
    monkeypatch.setattr(probing, "torch", SimpleNamespace(**{**vars(probing.torch), "get_num_threads": lambda: 77}))
    probe_machine("cpu", quick_probe)
    assert len(list((quick_probe / "probe").iterdir())) == 2


def test_a_probe_of_an_older_form_is_measured_again(quick_probe: Path) -> None:
    probe_machine("cpu", quick_probe)
    (file,) = (quick_probe / "probe").iterdir()
    file.write_text(json.dumps({"version": 0}))
    assert probe_machine("cpu", quick_probe).version == probing.PROBE_VERSION


@pytest.mark.parametrize(
    ("capability", "missing"), [((7, 0), {"fp8", "int8"}), ((8, 0), {"fp8"}), ((8, 9), set()), ((12, 0), set())]
)
def test_a_card_without_the_units_has_no_rate_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], missing: set[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    found = {name: product.missing("cuda:0") for name, product in PRODUCTS.items()}
    assert {name for name, reason in found.items() if reason} == missing
    assert all("came with capability" in str(found[name]) for name in missing)


def test_an_older_torch_has_no_such_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    monkeypatch.delattr(torch, "_scaled_mm")
    assert "has no _scaled_mm" in str(PRODUCTS["fp8"].missing("cuda:0"))


def test_a_product_that_torch_refuses_is_missing_with_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("not for this architecture\nsecond line")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    rates, missing = probing._gemm_rates("cpu", 32)
    assert "int8" not in rates
    assert missing["int8"].endswith("refuses a product in int8 here: not for this architecture")


@pytest.mark.parametrize(("name", "rounding"), [("fp32", 1e-5), ("bf16", 0.02), ("fp8", 0.08)])
def test_the_products_are_products(name: str, rounding: float) -> None:
    """fp8 is converted on a processor, which shows that the operands stand as the call wants them."""
    left, right = matrix_products._operands("cpu", 64)
    product = PRODUCTS[name].prepare("cpu", 64)()
    assert isinstance(product, torch.Tensor)
    exact = left @ (right.t() if name == "fp8" else right)
    assert (product.float() - exact).norm() / exact.norm() < rounding


def test_the_int8_product_is_exact() -> None:
    left, right = ((operand * 32).clamp(-128, 127).to(torch.int8) for operand in matrix_products._operands("cpu", 64))
    assert torch.equal(PRODUCTS["int8"].prepare("cpu", 64)(), left.int() @ right.t().int())


def test_what_changes_a_cards_peaks_changes_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(uuid: str, driver: str, limit_w: float | None) -> str:
        card = FoundDevice("h200-sxm-141gb", None, "NVIDIA", "NVIDIA H200", None, 2**37, driver, uuid, limit_w)
        monkeypatch.setattr(probing, "detect_machine", lambda: SimpleNamespace(gpus=(card,)))
        monkeypatch.setattr(probing, "uuid_of", lambda _device: uuid)
        return probing._fingerprint("cuda:0")

    monkeypatch.setattr(probing, "_name", lambda _device: "NVIDIA H200")
    cards = [("a", "580", 700.0), ("b", "580", 700.0), ("a", "590", 700.0), ("a", "580", 500.0), ("a", "580", None)]
    assert len({fingerprint(*card) for card in cards}) == len(cards)
    assert fingerprint(*cards[0]) == fingerprint(*cards[0])


def test_a_card_that_no_library_tells_of_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_name", lambda _device: "AMD Instinct MI300X")
    monkeypatch.setattr(probing, "uuid_of", lambda _device: None)
    assert probing._card("cuda:0") == ("AMD Instinct MI300X", None, None, None)
