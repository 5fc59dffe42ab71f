"""What can be said before anything is stored: every problem at its field, and figures to expect."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import SubmissionError
from moe_cap.hardware import FoundDevice, Machine
from moe_cap.offerings import TASKS
from moe_cap.preflight import Preflight, check
from moe_cap.preflight import model as looking
from moe_cap.preflight.duration import TASK_WORK, read_peaks
from moe_cap.preflight.model import FoundModel, find_on_hub
from moe_cap.settings import CHECKOUT, Settings, read_settings
from moe_cap.submission import Submission

SHIPPED = CHECKOUT / "assets" / "cap-tiny-moe"
CONFIG: dict[str, Any] = json.loads((SHIPPED / "config.json").read_text())


def machine(memory_bytes: float = 16e9) -> Machine:
    device = FoundDevice("cpu-probed", None, "test", "A processor", None, int(memory_bytes), None)
    return Machine((device,), "A processor", "test", 1, 2, 2, int(memory_bytes), "Linux", "x86_64")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"MOE_CAP_HOME": str(tmp_path / "home"), "MOE_CAP_QUEUE": str(tmp_path / "queue")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "model"))


def look(submission: Submission, settings: Settings, **more: Any) -> Preflight:
    return check(submission, settings, machine=more.pop("machine", machine()), **more)


def fields(found: Preflight) -> list[str]:
    return [problem.field for problem in found.problems]


def test_shipped_model_passes_with_its_figures(settings: Settings) -> None:
    found = look(Submission(model=str(SHIPPED), concurrency=(1, 4), tasks=("cap_copy",)), settings)
    assert found.ok
    assert found.model_type == "qwen3_moe"
    assert found.fits is True
    assert found.weights_bytes == 2 * (found.parameters_total or 0)
    layers, kv_heads, head_dim = CONFIG["num_hidden_layers"], CONFIG["num_key_value_heads"], CONFIG["head_dim"]
    assert found.kv_bytes == 4 * (128 + 64) * layers * 2 * kv_heads * head_dim * 2
    assert found.eta_s is not None
    assert found.eta_s > 0


def test_every_wrong_field_is_named_in_the_order_of_the_form(settings: Settings) -> None:
    asked = Submission(
        model=str(SHIPPED), revision="main", engine="nothing", tasks=("cap_copy", "homework"), input_tokens=2048,
        hardware="h100",
    )  # fmt: skip
    assert fields(look(asked, settings)) == ["revision", "engine", "tasks", "input_tokens", "hardware"]


def test_precision_that_the_engine_does_not_offer_is_named_with_those_it_does(settings: Settings) -> None:
    (problem,) = look(Submission(model=str(SHIPPED), precision="mxfp4"), settings).problems
    assert problem.field == "precision"
    assert "bf16" in problem.message


def test_quantised_checkpoint_cannot_be_asked_for_in_another_precision(settings: Settings, folder: Path) -> None:
    scheme = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": scheme}))
    (problem,) = look(Submission(model=str(folder)), settings).problems
    assert problem.field == "precision"
    assert "is stored in fp8" in problem.message


def test_a_server_is_asked_for_a_quantised_precision_only_with_a_checkpoint_stored_so(
    settings: Settings, folder: Path
) -> None:
    asked = Submission(model=str(folder), engine="vllm", precision="fp8")
    (problem,) = look(asked, settings).problems
    assert problem.field == "precision"
    assert "take a checkpoint of it that is stored in fp8" in problem.message
    scheme = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": scheme}))
    assert look(asked, settings).ok


def test_engine_of_the_tests_cannot_be_asked_for(settings: Settings) -> None:
    assert fields(look(Submission(model=str(SHIPPED), engine="fake"), settings)) == ["engine"]


def test_folder_that_is_not_there(settings: Settings) -> None:
    (problem,) = look(Submission(model="./no/such/folder"), settings).problems
    assert problem == ("model", "there is no folder ./no/such/folder on this machine")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no .safetensors weights"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_folder_without_what_an_engine_needs(settings: Settings, folder: Path, missing: str, words: str) -> None:
    (folder / missing).unlink()
    (problem,) = look(Submission(model=str(folder)), settings).problems
    assert problem.field == "model"
    assert words in problem.message


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": 3}', '{"model_type": "llama"}', "\xff"])
def test_config_that_cannot_be_used_is_a_problem_and_no_exception(settings: Settings, folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert fields(look(Submission(model=str(folder)), settings)) == ["model"]


def test_unknown_family_says_what_to_do(settings: Settings, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "from_tomorrow"}))
    (problem,) = look(Submission(model=str(folder)), settings).problems
    assert "from_tomorrow" in problem.message
    assert "registry" in problem.message


def test_folders_are_refused_where_they_may_not_be_named(settings: Settings) -> None:
    found = look(Submission(model=str(SHIPPED)), replace(settings, allow_folders=False))
    assert fields(found) == ["model"]
    assert found.model_type is None  # not even looked at


def test_model_larger_than_the_memory_does_not_fit(settings: Settings) -> None:
    found = look(Submission(model=str(SHIPPED)), settings, machine=machine(0.5e9))
    assert found.fits is False
    (problem,) = found.problems
    assert problem.field == "model"
    assert "0.5 GB" in problem.message


def test_model_larger_than_the_memory_is_a_warning_for_an_engine_that_offloads(settings: Settings) -> None:
    asked = Submission(model=str(SHIPPED), engine="transformers-offload")
    found = look(asked, settings, machine=machine(0.5e9))
    assert (found.ok, found.fits) == (True, False)
    assert any("0.5 GB: the rest lies outside" in warning for warning in found.warnings)


def test_device_that_was_asked_for_is_what_memory_is_compared_with(settings: Settings) -> None:
    asked = Submission(model=str(SHIPPED), hardware="h100-sxm-80gb")
    found = look(asked, settings, machine=machine(0.5e9))
    assert found.ok
    assert found.memory_bytes is not None
    assert found.memory_bytes > 80e9
    assert "datasheet of h100-sxm-80gb" in str(found.eta_basis)


def test_shared_queue_does_not_judge_by_the_machine_of_the_page(settings: Settings) -> None:
    shared = replace(settings, queue="hub://lab/queue")
    found = look(
        Submission(model="lab/model"), shared, machine=machine(0.1e9), on_hub=lambda _: FoundModel(CONFIG, 10**6)
    )
    assert found.ok
    assert (found.fits, found.memory_bytes, found.eta_s) == (None, None, None)


def test_probe_of_this_machine_is_what_the_time_rests_on(settings: Settings) -> None:
    assumed = look(Submission(model=str(SHIPPED)), settings)
    probe = {"copy_bytes_per_s": 1e6, "gemm_flops_per_s": {"bf16": 1e12}, "device": "A slow processor", "version": 1}
    (settings.home / "probe").mkdir(parents=True)
    (settings.home / "probe" / "a.json").write_text(json.dumps(probe))
    probed = look(Submission(model=str(SHIPPED)), settings)
    assert "A slow processor" in str(probed.eta_basis)
    assert (probed.eta_s or 0) > (assumed.eta_s or 0)


def test_damaged_probe_is_passed_over(settings: Settings) -> None:
    (settings.home / "probe").mkdir(parents=True)
    (settings.home / "probe" / "a.json").write_text("{")
    assert "assumed" in read_peaks(settings.home, "bf16", None).source


@given(level=st.integers(1, 64), more=st.integers(1, 64), tokens=st.integers(2, 900))
def test_larger_loads_never_need_less_memory_or_time(level: int, more: int, tokens: int) -> None:
    at_home = read_settings({"MOE_CAP_HOME": "/nonexistent"})
    small = look(Submission(model=str(SHIPPED), concurrency=(level,), output_tokens=tokens), at_home)
    large = look(Submission(model=str(SHIPPED), concurrency=(level, level + more), output_tokens=tokens + 1), at_home)
    assert (small.kv_bytes or 0) < (large.kv_bytes or 0)
    assert (small.eta_s or 0) < (large.eta_s or 0)


def test_hub_that_does_not_answer_in_time_is_said_so(settings: Settings) -> None:
    answered = threading.Event()

    def slow(_: Submission) -> FoundModel:
        answered.wait(10)
        raise SubmissionError("too late", field="model")

    found = look(Submission(model="lab/model"), settings, on_hub=slow, deadline_s=0.05)
    answered.set()
    (problem,) = found.problems
    assert "did not say within" in problem.message


def raises(error: Exception) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call


def test_hub_out_of_reach_is_a_clear_message(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking.HfApi, "model_info", raises(httpx2.ConnectError("Name or service not known")))
    (problem,) = look(Submission(model="lab/certainly-not-cached"), settings).problems
    assert problem.field == "model"
    assert "the Hub cannot be reached (Name or service not known)" in problem.message


def test_copy_in_the_cache_is_used_when_the_hub_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking.HfApi, "model_info", raises(httpx2.ConnectTimeout("slow")))
    monkeypatch.setattr(looking, "snapshot_download", lambda *_, **__: str(SHIPPED))
    found = find_on_hub(Submission(model="lab/model"))
    assert found.config["model_type"] == "qwen3_moe"
    assert "cache" in str(found.warning)


def test_every_task_has_its_share_of_the_time() -> None:
    assert set(TASK_WORK) == set(TASKS)


@pytest.mark.parametrize("task", ["cap_arithmetic", "cap_copy", "cap_choice"])
def test_number_of_problems_is_that_of_the_task_file(task: str) -> None:
    problems = CHECKOUT / "src" / "moe_cap" / "measure" / "tasks" / f"{task}.jsonl"
    assert TASK_WORK[task].problems == len(problems.read_text().splitlines())
