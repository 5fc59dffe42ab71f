"""The transformers engine against transformers itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moe_cap.errors import EngineStartError, InvalidRunError, OutOfMemoryError
from moe_cap.measure import memory
from moe_cap.measure.engines import quantise
from moe_cap.measure.engines.base import Session
from moe_cap.measure.engines.capture import RECORDING, Capture
from moe_cap.measure.engines.transformers import ENGINE
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.measure.engine_contract import LockStepContract, make_requests
from tests.measure.tiny_models import MOE_FAMILIES, build_model, write_model

pytestmark = pytest.mark.model


class TestTransformersEngine(LockStepContract):
    engine = ENGINE


class TestTransformersEngineInInt8(LockStepContract):
    """Experts of their own modules: routing by the pre-hook instead of the experts interface."""

    engine = ENGINE
    precision = "int8"
    score_tolerance = 0.1  # logits in bf16 have eight bits


@pytest.fixture(scope="module")
def session(tiny_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Session:
    log = tmp_path_factory.mktemp("engine") / "engine.log"
    return ENGINE.start(ENGINE.launch_spec(tiny_files, "fp32"), log)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tokens_are_those_of_generate(tiny_files: ModelFiles, tmp_path: Path, precision: str) -> None:
    session = ENGINE.start(ENGINE.launch_spec(tiny_files, precision), tmp_path / "log")
    requests = make_requests(3, output=12)
    model = quantise.load_model(tiny_files.folder, precision)
    prompts = torch.tensor([request.prompt for request in requests])
    expected = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=12, min_new_tokens=12, do_sample=False
    )[:, prompts.shape[1] :]
    got = [list(done.tokens) for done in session.run(requests, 3).completions]
    end = model.generation_config.eos_token_id
    assert all(end not in row for row in got), "choose another seed: min_new_tokens forbids the end token"
    assert got == expected.tolist()


def test_the_end_token_does_not_end_a_timed_answer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    model = session._model  # type: ignore[attr-defined]
    head = model.lm_head
    monkeypatch.setattr(head, "forward", lambda hidden: torch.nn.functional.one_hot(
        torch.zeros(hidden.shape[:-1], dtype=torch.long), model.config.vocab_size).float())  # fmt: skip
    (done,) = session.run(make_requests(1), 1).completions
    assert done.tokens == (session.tokenizer.end_token,) * 5


def _attached(model: torch.nn.Module) -> tuple[int, str]:
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    return hooks, model.config._experts_implementation


def test_a_forbidden_token_is_neither_said_nor_predicted(tiny_files: ModelFiles, tmp_path: Path) -> None:
    spec = ENGINE.launch_spec(tiny_files, "fp32")
    requests = make_requests(2, output=6)
    free = ENGINE.start(spec, tmp_path / "log").run(requests, 2)
    banned = free.completions[0].tokens[0]
    told = replace(spec, options={**spec.options, "forbidden_tokens": [banned]})
    session = ENGINE.start(told, tmp_path / "log")
    run = session.run(requests, 2)
    assert all(banned not in done.tokens for done in run.completions)
    rows = session.route(requests, run.completions)
    assert [row.predicted for row in rows] == [done.tokens for done in run.completions]
    assert all(banned not in row.predicted for row in session.route(requests, free.completions))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nothing_is_attached_in_the_timing_pass(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    session = ENGINE.start(ENGINE.launch_spec(tiny_files, precision), tmp_path / "log")
    model, seen = session._model, []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda *a, **k: seen.append(_attached(model)) or generate(*a, **k))
    requests = make_requests(2)
    before = _attached(model)
    run = session.run(requests, 2)
    session.route(requests, run.completions)
    timed, routed = seen
    assert timed == before
    assert routed != before, "the spy would not see an instrumented pass"
    assert _attached(model) == before


def _router_choices(model: Any, tokens: torch.Tensor) -> Iterator[np.ndarray]:
    """What each router's own module returned: the only integer tensor among its outputs."""
    found: list[torch.Tensor] = []

    def note(module: Any, arguments: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        found.extend(part for part in parts if not part.is_floating_point())

    routers = [module for name, module in model.named_modules() if name.rpartition(".")[2] in {"gate", "router"}]
    handles = [router.register_forward_hook(note) for router in routers]
    model(tokens)
    for handle in handles:
        handle.remove()
    for indices in found:
        yield np.sort(indices.reshape(-1, indices.shape[-1]).numpy(), axis=-1)


@pytest.mark.parametrize("family", MOE_FAMILIES)
def test_captured_experts_are_those_that_the_router_chose(family: str) -> None:
    model = build_model(family)
    tokens = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = list(_router_choices(model, tokens))
        with Capture(model) as capture:
            model(tokens)
    (recorded,) = capture.passes
    assert recorded.shape[1] == len(expected) > 0
    for layer, chosen in enumerate(expected):
        assert np.array_equal(np.sort(recorded[:, layer].numpy(), axis=-1), chosen)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "qwen2_moe", "olmoe"])
def test_captured_experts_are_the_top_of_the_router_logits(family: str) -> None:
    model = build_model(family)
    tokens = torch.randint(1, 300, (2, 9), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode(), Capture(model) as capture:
        output = model(tokens, output_router_logits=True)
    for layer, logits in enumerate(output.router_logits):
        top = logits.reshape(-1, logits.shape[-1]).topk(2).indices.sort(dim=-1).values
        assert torch.equal(capture.passes[0][:, layer].sort(dim=-1).values.long(), top)


@pytest.mark.parametrize("family", MOE_FAMILIES)
def test_recording_changes_no_logit_and_leaves_the_model_as_it_was(family: str) -> None:
    model = build_model(family)
    tokens = torch.arange(1, 13).reshape(2, 6)
    with torch.inference_mode():
        plain = model(tokens).logits
        before = _attached(model)
        with Capture(model):
            assert model.config._experts_implementation.startswith(RECORDING)
            watched = model(tokens).logits
    assert torch.equal(plain, watched)
    assert _attached(model) == before


def test_the_pre_hook_records_the_same_as_the_interface() -> None:
    model = build_model("qwen3_moe")
    tokens = torch.arange(1, 13).reshape(2, 6)
    passes = []
    for implementation in ("grouped_mm", "eager"):
        model.set_experts_implementation(implementation)
        with torch.inference_mode(), Capture(model) as capture:
            model(tokens)
        passes.append(capture.passes[0])
    assert torch.equal(*passes)


def test_a_pass_that_skips_a_layer_is_refused() -> None:
    model = build_model("qwen3_moe")
    model.model.layers[1].mlp.forward = lambda hidden: hidden
    with torch.inference_mode(), pytest.raises(InvalidRunError, match="2 of 3"), Capture(model):
        model(torch.arange(1, 7).reshape(1, 6))


def test_a_dense_model_has_no_rows(tmp_path: Path) -> None:
    files = find_model(Submission(model=str(write_model(tmp_path / "dense", "qwen3"))))
    session = ENGINE.start(ENGINE.launch_spec(files, "bf16"), tmp_path / "log")
    requests = make_requests(2)
    assert session.route(requests, session.run(requests, 2).completions) == ()


def test_a_static_cache_gives_the_same_tokens_and_experts(tiny_files: ModelFiles, tmp_path: Path) -> None:
    """The path that CUDA takes, without its compiler."""
    spec = ENGINE.launch_spec(tiny_files, "fp32")
    static = type(spec)(spec.files, spec.precision, {**spec.options, "cache_implementation": "static"})
    requests, runs, rows = make_requests(2), [], []
    for each in (spec, static):
        session = ENGINE.start(each, tmp_path / "log")
        runs.append(session.run(requests, 2))
        rows.append(session.route(requests, runs[-1].completions))
    assert [done.tokens for done in runs[0].completions] == [done.tokens for done in runs[1].completions]
    assert all(np.array_equal(a.experts, b.experts) for a, b in zip(*rows, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_weights_held_are_the_weights_counted(tiny_files: ModelFiles, tmp_path: Path, precision: str) -> None:
    from moe_cap.architecture import parse_config
    from moe_cap.precision import stored_bytes

    session = ENGINE.start(ENGINE.launch_spec(tiny_files, precision), tmp_path / "log")
    architecture = parse_config(tiny_files.config)
    assert session.weights_bytes() == stored_bytes(architecture, session.storage(architecture))


def test_threads_are_set_and_recorded(session: Session) -> None:
    assert session.describe().arguments["threads"] == torch.get_num_threads()


def test_a_model_without_tokenizer_does_not_start(copied_folder: Path, tmp_path: Path) -> None:
    (copied_folder / "tokenizer.json").unlink()
    files = find_model(Submission(model=str(copied_folder)))
    with pytest.raises(EngineStartError):
        ENGINE.start(ENGINE.launch_spec(files, "fp32"), tmp_path / "log")


def test_a_model_larger_than_the_memory_is_refused_with_both_numbers(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000.0)
    with pytest.raises(OutOfMemoryError, match=r"needs about .* GiB .* cpu has 0.0 GiB free"):
        ENGINE.start(ENGINE.launch_spec(tiny_files, "fp32"), tmp_path / "log")


def test_a_failed_allocation_is_out_of_memory(session: Session) -> None:
    with pytest.raises(OutOfMemoryError, match="this process holds"), memory.memory_errors("a batch of 9"):
        torch.empty(2**60, dtype=torch.uint8)


def test_another_runtime_error_is_not_taken_for_out_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory.memory_errors("a batch"):
        raise RuntimeError("shape mismatch")


def test_int4_is_refused_on_a_device_that_its_kernel_does_not_run_on(tiny_files: ModelFiles, tmp_path: Path) -> None:
    spec = ENGINE.launch_spec(tiny_files, "int4")
    elsewhere = type(spec)(spec.files, spec.precision, {**spec.options, "device": "meta"})
    with pytest.raises(EngineStartError, match="on the CPU only, not on meta"):
        ENGINE.start(elsewhere, tmp_path / "log")
