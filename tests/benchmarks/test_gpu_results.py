"""`make gpu-results` without a GPU: its plan, what it misses, and a rehearsal with shapes that a CPU can carry."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import dram_bytes, gpu_results, shapes
from moe_cap.architecture import parse_config
from moe_cap.board import frame
from moe_cap.errors import InvalidInputError
from moe_cap.hardware import detect_machine
from moe_cap.measure.model_files import RANDOM_WEIGHTS
from moe_cap.result import parse_result

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

PUBLIC = {
    "OLMoE-1B-7B": (6.92, 1.3),
    "Qwen1.5-MoE-A2.7B": (14.3, 2.7),
    "DeepSeek-V2-Lite": (15.7, 2.4),
    "Qwen3-30B-A3B": (30.5, 3.3),
    "gpt-oss-20b": (20.91, 3.61),
}
"""Total and activated parameters, in billions, as the models' cards print them; embeddings are counted differently."""
WITHOUT_GPU = pytest.mark.skipif(detect_machine().devices[0].pci_id is not None, reason="this machine has a GPU")


def test_the_shapes_have_the_parameters_that_the_models_cards_print() -> None:
    public = {path.stem: json.loads(path.read_text()) for path in gpu_results.SHAPES.glob("*.json")}
    assert set(public) == set(PUBLIC)
    for name, config in public.items():
        parameters = parse_config(config).parameters()
        total, active = PUBLIC[name]
        assert parameters.total / 1e9 == pytest.approx(total, rel=0.005), name
        assert active * 0.97 < parameters.active / 1e9 < active * 1.2, name


def test_the_plan_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_results.main(["--plan"]) == 0
    plan = capsys.readouterr().out
    for name in PUBLIC:
        assert name in plan
    assert plan.count("moe-cap profile --engine vllm") == 10
    assert plan.count("--concurrency 1,2,4,8 ") == plan.count("--concurrency 16,32,64 ") == 5
    assert plan.count("-- --max-model-len 896") == 10, "the models' own lengths reserve memory for 163,840 tokens"
    assert "61.1 GB in bf16" in plan
    assert "13.8 GB in mxfp4" in plan, "the files of openai/gpt-oss-20b have 13.76 GB"
    assert plan.count("--precision bf16") == 8
    assert plan.count("--precision mxfp4") == 2


@WITHOUT_GPU
def test_without_a_gpu_nothing_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_results.main(["--scratch", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "missing: no GPU: this machine has" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_arguments_for_all_and_for_one_shape_reach_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    own = "--shape-args=OLMoE-1B-7B=--attention-backend TRITON_ATTN"
    assert gpu_results.main(["--plan", "--engine-args=--gpu-memory-utilization 0.8", own]) == 0
    plan = capsys.readouterr().out
    assert plan.count("--gpu-memory-utilization 0.8") == 10
    assert plan.count("--gpu-memory-utilization 0.8 --attention-backend TRITON_ATTN") == 2
    with pytest.raises(SystemExit, match="NAME=ARGUMENTS"):
        gpu_results.main(["--plan", "--shape-args=GPT-5=--x"])


def test_a_shape_without_room_is_skipped_with_its_reason_and_the_others_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_results, "no_gpu", lambda: None)
    monkeypatch.setattr(gpu_results, "engine_missing", lambda engine: None)
    monkeypatch.setattr(
        gpu_results, "lacks_room", lambda shape, *_, **__: "too big" if shape.name == "Qwen3-30B-A3B" else None
    )
    ran: list[str] = []
    monkeypatch.setattr(gpu_results, "measure", lambda shape, *_: ran.append(shape.name) or True)
    assert gpu_results.main(["--scratch", str(tmp_path), "--output", str(tmp_path)]) == 1
    assert set(ran) == set(PUBLIC) - {"Qwen3-30B-A3B"}
    said = capsys.readouterr().err
    assert "missing: too big" in said
    assert "skipped: Qwen3-30B-A3B" in said


def test_the_disk_needs_the_weights_and_a_gigabyte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shape,) = shapes.read_shapes(gpu_results.SHAPES, ["OLMoE-1B-7B"])
    for free, fits in ((shape.weights_bytes + 1.1e9, True), (shape.weights_bytes + 0.9e9, False)):
        monkeypatch.setattr(shapes.shutil, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        assert (shapes.lacks_room(shape, tmp_path, rehearsal=True) is None) == fits


def test_a_model_that_somebody_keeps_where_weights_are_drawn_is_left_alone(tmp_path: Path) -> None:
    (shape,) = shapes.read_shapes(gpu_results.SHAPES, ["OLMoE-1B-7B"])
    kept = tmp_path / shape.name
    kept.mkdir()
    (kept / "model.safetensors").touch()
    for config in (None, json.dumps(shape.config), "{half"):
        if config is not None:
            (kept / "config.json").write_text(config)
        assert "--scratch" in str(shapes.lacks_room(replace(shape, weights_bytes=0), tmp_path, rehearsal=True))
        with pytest.raises(InvalidInputError, match="would be removed"), shapes.drawn(shape, tmp_path):
            pytest.fail("something was drawn")
        assert (kept / "model.safetensors").exists()
    (kept / "config.json").write_text(json.dumps(shape.config | {RANDOM_WEIGHTS: 0}))
    assert shapes.occupied(shape, tmp_path) is None, "a run that was killed left it"


def test_a_shape_that_is_not_there() -> None:
    with pytest.raises(SystemExit, match="there are: DeepSeek-V2-Lite"):
        gpu_results.main(["--only", "GPT-5"])


def small(shape: dict[str, object]) -> dict[str, object]:
    """The same family, small enough for a processor."""
    fewer = {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 320, "num_experts": 8, "num_experts_per_tok": 2,
    }  # fmt: skip
    return shape | fewer


RECIPE = Path(__file__).parents[2] / "docs" / "profile.md"


def test_the_documented_calls_are_parsed_by_both_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """What make runs first: an option that one of them does not know ends everything before it starts."""
    calls = [
        line for line in RECIPE.read_text(encoding="utf-8").splitlines() if line.startswith("    make gpu-results")
    ]
    assert len(calls) == 2
    for call in calls:
        given = dict(word.split("=", 1) for word in shlex.split(call, comments=True)[2:])
        both, profile = shlex.split(given["ARGS"]), shlex.split(given.get("PROFILE_ARGS", ""))
        assert gpu_results.main([*both, *profile, "--plan"]) == 0
        assert dram_bytes.main([*both, *shlex.split(given.get("DRAM_ARGS", "")), "--plan"]) == 0
    with pytest.raises(SystemExit, match="2"):
        dram_bytes.main(["--plan", "--repeats", "1"])
    capsys.readouterr()


def test_the_counters_plan_names_steps_and_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    assert dram_bytes.main(["--plan", "--batches", "1,8"]) == 0
    plan = capsys.readouterr().out
    assert all(f"{name}: decode and prefill at batch 1, 8" in plan for name in PUBLIC)
    assert plan.count("vLLM with --moe-backend marlin") == 1
    assert dram_bytes.main(["--plan", "--shape-args=gpt-oss-20b=--moe-backend triton"]) == 2
    assert "tells no experts" in capsys.readouterr().err


@pytest.mark.model
def test_a_rehearsal_publishes_results_that_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moe_cap.measure import probe

    monkeypatch.setattr(probe, "SMALLEST_COPY_BYTES", 2**20)
    monkeypatch.setattr(probe, "CPU_SIDE", 128)
    monkeypatch.setattr(probe, "_last_level_cache_bytes", lambda: 0)
    monkeypatch.setenv("MOE_CAP_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MOE_CAP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RESULTS_REPO", raising=False)
    small_shapes = tmp_path / "shapes"
    small_shapes.mkdir()
    public = json.loads((gpu_results.SHAPES / "OLMoE-1B-7B.json").read_text())
    (small_shapes / "tiny-olmoe.json").write_text(json.dumps(small(public)))
    (tmp_path / "scratch").mkdir()
    places = ("--shapes", str(small_shapes), "--scratch", str(tmp_path / "scratch"), "--output", str(tmp_path / "out"))
    load = ("--batches", "1,2", "--input-tokens", "16", "--output-tokens", "4", "--repeats", "2")
    assert gpu_results.main([*places, *load, "--engine", "transformers", "--rehearsal"]) == 0
    (published,) = (tmp_path / "results" / "runs").rglob("*.json")
    result = parse_result(published.read_bytes())
    assert result.model.random_weights
    assert result.accuracy == ()
    assert [point.load.concurrency for point in result.points] == [1, 2]
    for point in result.points:
        assert point.quantities["decode_s_mbu"].value is not None
        assert point.routing_source is not None
    assert not list((tmp_path / "scratch").iterdir()), "the weights are gone"
    assert frame([result])["random_weights"].all()
    assert re.search(r"tiny-olmoe: (\S+) of \1 GB of weights drawn, \d+ s\n", capsys.readouterr().err)
