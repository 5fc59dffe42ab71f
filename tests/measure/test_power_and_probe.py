from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from zeus.monitor.energy import Measurement

from moe_cap.measure import probe as probing
from moe_cap.measure.power import PowerMeter, open_power_meter
from moe_cap.measure.probe import best_of, probe_machine


class Counters:
    """What zeus gives: a measurement per window."""

    gpu_indices = (0,)
    cpu_indices = (0,)

    def __init__(self, measurement: Measurement) -> None:
        self.measurement, self.open = measurement, []

    def begin_window(self, key: str) -> None:
        self.open.append(key)

    def end_window(self, key: str) -> Measurement:
        self.open.remove(key)
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
    assert set(first.gemm_flops_per_s) == {"fp32", "bf16"}
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
