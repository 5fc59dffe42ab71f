"""Where an engine ran is read from its own record, never from which device a machine lists first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moe_cap.errors import InvalidRunError
from moe_cap.hardware import FoundDevice, Machine
from moe_cap.measure.machine import identify_machine
from moe_cap.measure.placement import device_of, found_behind, gpus_of, why_gpus_unknown, why_no_offload_bytes
from moe_cap.measure.probe import Probe
from moe_cap.result import EngineRecord

H100 = FoundDevice("h100-sxm-80gb", None, "NVIDIA", "NVIDIA H100 80GB HBM3", "10de:2330", 80 * 2**30, "580", "aaaa")
L4 = FoundDevice("l4-24gb", None, "NVIDIA", "NVIDIA L4", "10de:27b8", 24 * 2**30, "580", "bbbb")
GPUS = Machine((H100, L4), "AMD EPYC 9654", "AuthenticAMD", 1, 2, 2, 64 * 2**30, "Linux", "x86_64")
NO_GPU = replace(GPUS, devices=(GPUS.processor,))
PROBE = Probe(
    3,
    "f",
    "2026-11-22T00:00:00+00:00",
    "AMD EPYC 9654",
    2,
    1e10,
    1,
    {"bf16": 1e11},
    {"fp8": "no units"},
    1,
    1e10,
    1,
    None,
    None,
    7,
    0.0,
)


def engine(**arguments: Any) -> EngineRecord:
    return EngineRecord(
        name="an engine", version="1", arguments=arguments, weights_dtype="bf16", kv_dtype="bf16", compute_dtype="bf16"
    )


def test_a_run_on_the_processor_of_a_gpu_machine_is_the_processors() -> None:
    found = found_behind(device_of(engine(device="cpu"), GPUS, None), None, GPUS)
    known = identify_machine(GPUS, found, PROBE, asked=None)
    record = known.record("bf16")
    assert (record.device, record.device_name, record.memory_bytes) == ("cpu-probed", "AMD EPYC 9654", 64 * 2**30)
    assert record.datasheet_peak_bytes_per_s is None
    assert (known.peaks("bf16").unmeasured_reason, known.peaks("fp8").unmeasured_reason) == (None, "no units")


def test_the_card_is_known_by_its_uuid_whatever_its_number() -> None:
    found = found_behind(device_of(engine(device="cuda:0"), GPUS, None), "bbbb", GPUS)
    record = identify_machine(GPUS, found, replace(PROBE, device="NVIDIA L4"), asked="l4-24gb").record("bf16")
    assert (record.device, record.device_name) == ("l4-24gb", "NVIDIA L4")


def test_cards_that_are_alike_need_no_uuid_and_others_do() -> None:
    assert found_behind("cuda:1", None, replace(GPUS, devices=(H100, H100))) == H100
    for machine in (GPUS, NO_GPU):
        with pytest.raises(InvalidRunError, match="which is it"):
            found_behind("cuda:1", "cccc", machine)


@pytest.mark.parametrize(
    ("arguments", "machine", "asked", "device"),
    [
        ({"device": "cuda"}, GPUS, None, "cuda:0"),
        ({"device_config": "cpu"}, GPUS, None, "cpu"),
        ({}, NO_GPU, None, "cpu"),
        ({}, GPUS, "l4-24gb", "cuda:1"),
        ({}, GPUS, "cpu-probed", "cpu"),
    ],
)
def test_the_engine_tells_or_the_submission_does(
    arguments: dict[str, Any], machine: Machine, asked: str | None, device: str
) -> None:
    assert device_of(engine(**arguments), machine, asked) == device


@pytest.mark.parametrize("asked", [None, "a100-sxm-80gb"])
def test_a_silent_engine_on_a_machine_with_a_choice_is_refused(asked: str | None) -> None:
    with pytest.raises(InvalidRunError, match="l4-24gb, cpu-probed"):
        device_of(engine(), GPUS, asked)


def test_the_gpus_of_a_run_start_at_its_device() -> None:
    assert gpus_of(engine(), "cuda:2", 2) == (2, 3)
    assert gpus_of(engine(), "cpu", 1) == ()


def test_the_first_gpu_that_sglang_was_given_is_the_runs_first() -> None:
    told = engine(device="cuda", base_gpu_id=4, gpu_id_step=2)
    device = device_of(told, GPUS, None)
    assert (device, gpus_of(told, device, 2)) == ("cuda:4", (4, 6))
    plain = engine(device="cuda", base_gpu_id=0, gpu_id_step=1)
    assert gpus_of(plain, device_of(plain, GPUS, None), 2) == (0, 1)


@pytest.mark.parametrize(
    ("gpus", "ours", "known"), [((0,), False, False), ((0,), True, True), ((0, 1), False, True), ((), False, True)]
)
def test_a_server_that_somebody_else_started_may_be_on_any_of_more_gpus(
    gpus: tuple[int, ...], ours: bool, known: bool
) -> None:
    reason = why_gpus_unknown(gpus, GPUS, ours=ours)
    assert (reason is None) is known


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("transformers", {}, "nothing is offloaded"),
        ("ktransformers", {}, "weights are offloaded, and"),
        ("transformers-offload", {"modules_by_place": {"cpu": 3, "disk": 2}}, "3 modules on cpu, 2 modules on disk"),
        ("llama-cpp-offload", {}, "weights are offloaded, and"),
        ("vllm", {"given_arguments": ["--cpu-offload-gb", "4"]}, "does not tell whether"),
        ("endpoint", {}, "does not tell whether"),
    ],
)
def test_only_an_engine_that_keeps_its_weights_says_so(name: str, arguments: dict[str, Any], words: str) -> None:
    record = engine(**arguments).model_copy(update={"name": name})
    assert words in why_no_offload_bytes(record, ours=True)


@pytest.mark.parametrize(("name", "arguments"), [("vllm", {}), ("sglang", {"cpu_offload_gb": 40}), ("llama-cpp", {})])
def test_of_an_engine_that_somebody_else_started_nobody_knows_where_its_weights_lie(
    name: str, arguments: dict[str, Any]
) -> None:
    record = engine(**arguments).model_copy(update={"name": name})
    assert "does not tell whether" in why_no_offload_bytes(record, ours=False)


def test_a_device_that_cannot_be_probed_is_refused() -> None:
    with pytest.raises(InvalidRunError, match="tpu"):
        device_of(engine(device="tpu"), GPUS, None)


def test_a_probe_of_another_device_is_refused() -> None:
    with pytest.raises(InvalidRunError, match="the probe is of AMD EPYC 9654"):
        identify_machine(GPUS, H100, PROBE, asked=None)
