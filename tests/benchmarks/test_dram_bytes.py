"""Predicted bytes against counters, without a GPU: the accounting of a recorded pass, and the command's refusals."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dram_bytes, dram_engine
from benchmarks.dram_account import Cell, Member, Row, compare, step_of, traced_ids
from benchmarks.dram_counters import CounterPermissionError, PassCounters
from benchmarks.shapes import SHAPES, read_shapes
from moe_cap.architecture import parse_config
from moe_cap.errors import EngineStartError, InvalidRunError, TraceError
from moe_cap.hardware import detect_machine
from moe_cap.metrics.bytes_and_flops import step_bytes
from moe_cap.metrics.footprint import expert_bytes
from moe_cap.precision import parse_quantization

WITHOUT_GPU = pytest.mark.skipif(detect_machine().devices[0].pci_id is not None, reason="this machine has a GPU")
H100_READ_BYTES = {1: (8, 2.4277e9), 8: (42.6, 9.845e9), 64: (64, 18.070e9)}
"""Distinct experts per layer and bytes read of one decode step behind 516 tokens (docs/metrics.md, 2)."""


def public(name: str) -> dict[str, object]:
    config: dict[str, object] = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))
    return config


def drawn_ids(tokens: int, layers: int, experts: int, top_k: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(experts)[:top_k] for _ in range(tokens * layers)]
    return np.asarray(rows, np.int16).reshape(tokens, layers, top_k)


@pytest.mark.parametrize("batch", H100_READ_BYTES)
def test_olmoe_is_within_one_percent_of_what_an_h100_counted(batch: int) -> None:
    config = public("OLMoE-1B-7B")
    arch, storage = parse_config(config), parse_quantization(config)
    members = [Member(f"r{index}", 516, 1) for index in range(batch)]
    recorded = step_of("decode", members, drawn_ids(batch, 16, 64, 8), arch)
    assert recorded.context_tokens == (517,) * batch
    experts, counted = H100_READ_BYTES[batch]
    step = replace(recorded, activated_experts=(experts,) * 16)
    row = compare("OLMoE-1B-7B", Cell("decode", batch, 512), step, arch, storage, "None", PassCounters(9, counted, 1e9))
    assert row.error is not None
    assert abs(row.error) <= 0.01
    assert row.verdict in {"within", "on target"}
    assert row.padding == 0


def test_marlin_padding_is_in_the_prediction_and_none_is_modelled_of_triton() -> None:
    config = public("gpt-oss-20b")
    arch, storage = parse_config(config), parse_quantization(config)
    members = [Member("r0", 515, 1)]
    step = step_of("decode", members, drawn_ids(1, 24, 32, 4), arch)
    cell = Cell("decode", 1, 512)
    plain = compare("gpt-oss-20b", cell, step, arch, storage, "TRITON Mxfp4", None)
    padded = compare("gpt-oss-20b", cell, step, arch, storage, "MARLIN Mxfp4", None)
    own = expert_bytes(arch.layers[0], storage)
    assert plain.predicted == step_bytes(arch, step, storage).total_read
    assert padded.predicted - plain.predicted == padded.padding
    assert padded.padding / (24 * 4 * own) == pytest.approx(3072 * 2944 / 2880**2 - 1, rel=0.01)


@pytest.mark.parametrize(
    ("counted", "verdict"), [(None, "not counted"), (1000.0, "on target"), (1008.0, "within"), (985.0, "outside")]
)
def test_verdicts(counted: float | None, verdict: str) -> None:
    row = Row("m", "decode", 1, 1, 8.0, 1000.0, 0.0, None, counted, None)
    assert row.verdict == verdict
    assert verdict in dram_bytes.table([row])


def test_routing_that_was_never_recorded_is_refused() -> None:
    arch = parse_config(public("OLMoE-1B-7B"))
    with pytest.raises(TraceError, match="all zero"):
        step_of("decode", [Member("r0", 515, 1)], np.zeros((1, 16, 8), np.int16), arch)
    with pytest.raises(TraceError, match="experts of 2 tokens, the pass computed 1"):
        step_of("decode", [Member("r0", 515, 1)], drawn_ids(2, 16, 64, 8), arch)


def traced(members: list[list[object]], ids: np.ndarray) -> str:
    coded = base64.b64encode(ids.astype(np.int16).tobytes()).decode()
    return json.dumps({"members": members, "shape": list(ids.shape), "ids": coded}, separators=(",", ":"))


def test_the_recorded_pass_is_found_by_its_members_whatever_their_order() -> None:
    ids = drawn_ids(2, 2, 8, 2)
    lines = [
        traced([["decode-2-0-ab", 0, 1], ["decode-2-1-cd", 0, 1]], drawn_ids(2, 2, 8, 2)[::-1]),
        traced([["decode-2-1-cd", 35, 1], ["decode-2-0-ab", 35, 1]], ids),
    ]
    members = [Member("decode-2-0", 35, 1), Member("decode-2-1", 35, 1)]
    assert np.array_equal(traced_ids(lines, members), ids[::-1])
    with pytest.raises(TraceError, match="saw no pass"):
        traced_ids(lines, members[:1])


def test_all_prompts_of_a_prefill_fit_into_one_pass() -> None:
    cells = [Cell("decode", 64, 512), Cell("prefill", 64, 256)]
    arguments = dram_engine.engine_arguments(Path("m"), cells, ["--attention-backend", "X"], rehearsal=False)
    told = dict(itertools.pairwise(arguments))
    assert told["--max-num-batched-tokens"] == str(64 * 256)
    assert told["--max-model-len"] == "640"
    assert told["--max-num-seqs"] == "64"
    assert "--enable-return-routed-experts" in arguments
    assert arguments[-2:] == ["--attention-backend", "X"]


def test_mxfp4_experts_are_counted_with_a_kernel_that_is_modelled_unless_somebody_chose_another() -> None:
    (oss,), (olmoe,) = read_shapes(SHAPES, ["gpt-oss-20b"]), read_shapes(SHAPES, ["OLMoE-1B-7B"])
    given = ["--gpu-memory-utilization", "0.8"]
    assert dram_engine.with_modelled_kernel(oss, given) == ["--moe-backend", "marlin", *given]
    assert dram_engine.with_modelled_kernel(olmoe, given) == given
    chosen = ["--moe-backend=triton-unfused"]
    assert dram_engine.with_modelled_kernel(oss, chosen) == chosen


def test_a_kernel_that_tells_no_routing_is_refused_before_anything_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (oss,) = read_shapes(SHAPES, ["gpt-oss-20b"])
    with pytest.raises(EngineStartError, match="tells no experts: take marlin or triton_unfused"):
        dram_engine.with_modelled_kernel(oss, ["--moe-backend", "triton"])
    monkeypatch.setattr(dram_bytes, "counting", lambda given: "ncu")
    monkeypatch.setattr(dram_bytes, "lacks_room", lambda *args, **kwargs: None)
    monkeypatch.setattr(dram_bytes, "measure", lambda *args: pytest.fail("something was drawn"))
    own = "--shape-args=gpt-oss-20b=--moe-backend triton"
    assert dram_bytes.main(["--only", "gpt-oss-20b", own, "--scratch", str(tmp_path)]) == 1
    assert "tells no experts" in capsys.readouterr().err


def test_counters_that_cannot_be_read_end_everything_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def walled_off(ncu: str, home: Path) -> int:
        raise CounterPermissionError("ERR_NVGPUCTRPERM")

    monkeypatch.setattr(dram_bytes, "no_gpu", lambda: None)
    monkeypatch.setattr(dram_bytes, "find_ncu", lambda given: "ncu")
    monkeypatch.setattr(dram_bytes, "engine_home", lambda: tmp_path)
    monkeypatch.setattr(dram_bytes, "probe_counters", walled_off)
    monkeypatch.setattr(dram_bytes, "measure", lambda *args: pytest.fail("something was drawn"))
    assert dram_bytes.main(["--scratch", str(tmp_path)]) == 1
    assert "missing: ERR_NVGPUCTRPERM" in capsys.readouterr().err


CRASHED = "loading weights\nValueError: no such attention backend\nhint: take another\n"
BY_HAND = (Path(__file__).parent / "fixtures" / "ncu-by-hand.csv").read_text(encoding="utf-8")


def passes_in(folder: Path, counters: str | None) -> dram_bytes.Passes:
    (shape,) = read_shapes(SHAPES, ["OLMoE-1B-7B"])
    passes = dram_bytes.Passes(shape, tuple(Cell("decode", batch, 512) for batch in (1, 2, 4)), folder)
    passes.log.write_text(CRASHED, encoding="utf-8")
    if counters is not None:
        passes.counters.write_text(counters, encoding="utf-8")
    return passes


@pytest.mark.parametrize("counters", [None, "", BY_HAND, BY_HAND[:-40]])
def test_a_crash_is_explained_by_vllm_whatever_is_left_of_the_counters(tmp_path: Path, counters: str | None) -> None:
    with pytest.raises(InvalidRunError, match="ended with status 1: ValueError: no such attention backend"):
        dram_bytes._explain(passes_in(tmp_path, counters), 1)


def test_a_crash_that_ncu_caused_is_ncus_with_vllms_words(tmp_path: Path) -> None:
    with pytest.raises(CounterPermissionError, match=r"(?s)run as root.*no such attention backend"):
        dram_bytes._explain(passes_in(tmp_path, "==ERROR== ERR_NVGPUCTRPERM - no permission\n"), 1)


def test_what_was_said_stays_when_a_shape_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(passes: dram_bytes.Passes, *_: object) -> None:
        passes_in(passes.folder, BY_HAND)
        raise InvalidRunError("vLLM ended")

    monkeypatch.setattr(dram_bytes, "drawn", lambda _shape, scratch: contextlib.nullcontext(scratch))
    monkeypatch.setattr(dram_bytes, "lacks_room", lambda *_, **__: None)
    monkeypatch.setattr(dram_bytes, "run_passes", crash)
    out = tmp_path / "out"
    asked = ("--only", "OLMoE-1B-7B", "--scratch", str(tmp_path), "--output", str(out), "--rehearsal")
    assert dram_bytes.main(asked) == 1
    assert (out / "OLMoE-1B-7B.vllm.log").read_text() == CRASHED
    assert (out / "OLMoE-1B-7B.ncu.csv").read_text() == BY_HAND
    assert f"kept {out / 'OLMoE-1B-7B.vllm.log'}" in capsys.readouterr().err


@WITHOUT_GPU
def test_without_a_gpu_nothing_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert dram_bytes.main(["--scratch", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    assert "missing: no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
