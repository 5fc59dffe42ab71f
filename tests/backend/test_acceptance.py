"""Which requests a machine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.acceptance import Acceptance, acceptance_of
from moe_cap.hardware import FoundDevice, Machine
from moe_cap.queue import Request, State
from moe_cap.submission import Submission

GPU = FoundDevice("h100-sxm-80gb", None, "NVIDIA", "NVIDIA H100 80GB HBM3", None, 85 * 10**9, "580.1")
STRANGE = FoundDevice(None, "not in the catalogue", "NVIDIA", "NVIDIA X", None, 10**9, "580.1")
NOWHERE = Path("/nowhere")
HERE = Acceptance(frozenset({"h100-sxm-80gb"}), frozenset({"transformers"}), folders=False)


def machine(*devices: FoundDevice) -> Machine:
    return Machine(devices, "cpu", "vendor", 1, 8, 16, 10**11, "Linux", "x86_64")


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (Submission(model="a/b"), None),
        (Submission(model="a/b", hardware="h100-sxm-80gb"), None),
        (Submission(model="a/b", hardware="h100-pcie-80gb"), "it needs h100-pcie-80gb, this machine has h100-sxm-80gb"),
        (Submission(model="a/b", engine="vllm"), "the engine vllm is not installed here"),
        (Submission(model="./assets/cap-tiny-moe"), "folders of this machine may not be named"),
    ],
)
def test_request_is_taken_when_hardware_engine_and_place_fit(asked: Submission, refusal: str | None) -> None:
    request = Request(asked.id, State.PENDING, asked.model_dump(mode="json"), 0.0, "ticket")
    assert HERE.refusal(asked) == refusal
    assert HERE(request) is (refusal is None)


def test_request_that_nobody_can_read_is_taken_so_that_it_fails_with_a_reason() -> None:
    assert HERE(Request("odd-one", State.PENDING, {"modle": "a/b"}, 0.0, "ticket"))


def test_device_outside_of_the_catalogue_serves_only_who_asks_for_no_device() -> None:
    here = acceptance_of(machine(STRANGE), folders=True, engines=NOWHERE, has=lambda _: True)
    assert here.devices == frozenset()
    assert here.refusal(Submission(model="./assets/cap-tiny-moe")) is None
    assert here.refusal(Submission(model="./assets/cap-tiny-moe", hardware="h100-sxm-80gb")) is not None


def test_engine_counts_as_installed_only_with_all_of_its_packages() -> None:
    assert "transformers" in acceptance_of(machine(GPU), folders=False, engines=NOWHERE, has=lambda _: True).engines
    assert (
        "transformers"
        not in acceptance_of(machine(GPU), folders=False, engines=NOWHERE, has=lambda name: name != "torch").engines
    )


def test_engine_of_the_tests_is_never_offered_by_a_worker() -> None:
    assert "fake" not in acceptance_of(machine(GPU), folders=False, engines=NOWHERE, has=lambda _: True).engines


def test_server_engine_counts_as_installed_only_with_an_environment_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    here = acceptance_of(machine(GPU), folders=False, engines=tmp_path, has=lambda _: True)
    assert "vllm" in here.engines
    assert "sglang" not in here.engines
