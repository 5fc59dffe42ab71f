"""llama.cpp in 8 and 4 bits: files of its own quantiser, held against llama.cpp itself on the checkpoint's own numbers.

Other engines quantise otherwise, so nobody else has these weights: tokens and experts are compared with llama.cpp in
bf16, bytes with what the file lists.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moe_cap.architecture import parse_config
from moe_cap.measure.engines import llama_cpp
from moe_cap.measure.engines.base import Completion, Continuation, Request, RoutingRows
from moe_cap.measure.engines.gguf_files import make_gguf
from moe_cap.measure.engines.gguf_tensors import gguf_storage, read_gguf
from moe_cap.measure.engines.llama_cpp import LlamaCppEngine
from moe_cap.measure.join import agreement, check_rows
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.precision import stored_bytes
from moe_cap.precision.formats import FP16
from moe_cap.result import EngineRecord
from moe_cap.submission import Submission
from tests.engines.server_contract import PATIENT, TOGETHER, make_requests
from tests.measure.tiny_models import MOE_FAMILIES, write_model

ENGINE = LlamaCppEngine(rules=PATIENT)
PRECISIONS = ("bf16", "int8", "int4")
TYPES = {"bf16": {"BF16", "F32"}, "int8": {"Q8_0", "F32"}, "int4": {"Q4_0", "Q8_0", "F32"}}
"""Of the shipped model, whose rows of 64 have no K-quant; the output projection keeps more bits."""


@dataclass(frozen=True)
class Quantised:
    """One precision: what the server said by itself, and what it made of the tokens that it said in bf16."""

    record: EngineRecord
    held_bytes: float
    counted_bytes: float
    said: tuple[Completion, ...]
    own_rows: tuple[RoutingRows, ...]
    rows: tuple[RoutingRows, ...]
    log_probability: float


def measure(files: ModelFiles, precision: str, log: Path, reference: tuple[Completion, ...] | None) -> Quantised:
    requests = make_requests(files)
    session = ENGINE.start(ENGINE.launch_spec(files, precision), log)
    try:
        said = session.run(requests, TOGETHER).completions
        architecture = parse_config(files.config)
        continued = reference or said
        asked = [Continuation(request.prompt, done.tokens) for request, done in zip(requests, continued, strict=True)]
        return Quantised(
            record=session.describe(),
            held_bytes=session.weights_bytes(),
            counted_bytes=stored_bytes(architecture, session.storage(architecture)),
            said=said,
            own_rows=session.route(requests, said),
            rows=session.route(requests, continued),
            log_probability=sum(score.log_probability for score in session.score(asked)),
        )
    finally:
        session.stop()


@pytest.fixture(scope="module")
def measured(shipped_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Quantised]:
    folder, found = tmp_path_factory.mktemp("llama-cpp-quantised"), {}
    for precision in PRECISIONS:
        reference = found["bf16"].said if found else None
        found[precision] = measure(shipped_files, precision, folder / f"{precision}.log", reference)
    return found


def same_sets(a: Quantised, b: Quantised) -> float:
    pairs = zip(a.rows, b.rows, strict=True)
    same = [(np.sort(x.experts, axis=-1) == np.sort(y.experts, axis=-1)).all(axis=-1) for x, y in pairs]
    return float(np.mean(np.concatenate(same)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_are_those_of_the_tensors_and_all_are_told_apart(measured: dict[str, Quantised], precision: str) -> None:
    one = measured[precision]
    assert one.counted_bytes == one.held_bytes
    told = one.record.arguments["gguf"]
    assert set(told["bytes_by_type"]) == TYPES[precision]
    assert told["matrices_not_told"] == []
    assert sum(told["bytes_by_type"].values()) == one.held_bytes


def test_fewer_bits_are_fewer_bytes_and_further_from_the_checkpoint(measured: dict[str, Quantised]) -> None:
    bf16, int8, int4 = (measured[precision] for precision in PRECISIONS)
    assert bf16.held_bytes > int8.held_bytes > int4.held_bytes
    eight, four = same_sets(bf16, int8), same_sets(bf16, int4)
    shares = f"top-k sets as in bf16: {eight:.4f} in int8, {four:.4f} in int4"
    print(f"\n{shares}; log-probability of the same tokens: {[one.log_probability for one in measured.values()]}")
    assert 1 > eight > four, shares
    assert abs(int8.log_probability - bf16.log_probability) < abs(int4.log_probability - bf16.log_probability)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_routing_pass_is_of_the_quantised_server_itself(
    measured: dict[str, Quantised], shipped_files: ModelFiles, precision: str
) -> None:
    one = measured[precision]
    check_rows(one.own_rows, parse_config(shipped_files.config))
    agreed = agreement(one.own_rows, {done.request_id: done for done in one.said})
    print(f"\n{precision}: agreement {agreed:.4f}")
    assert one.record.arguments["routing_pass"] == "the recorder before llama-server"
    assert agreed >= 0.9


@pytest.fixture
def without_recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(llama_cpp, "RECORDER", "bin/none.so")
    yield


def test_without_the_recorder_nobody_pretends_to_know_where_quantised_weights_route(
    without_recorder: None, shipped_files: ModelFiles, tmp_path: Path
) -> None:
    requests = make_requests(shipped_files, 1)
    session = ENGINE.start(ENGINE.launch_spec(shipped_files, "int4"), tmp_path / "engine.log")
    try:
        assert session.route(requests, session.run(requests, 1).completions) == ()
        assert str(session.describe().arguments["routing_pass"]).startswith("nobody")
    finally:
        session.stop()


def test_a_given_file_is_the_same_model(
    measured: dict[str, Quantised], shipped_files: ModelFiles, tmp_path: Path
) -> None:
    made = ENGINE.gguf(ENGINE.launch_spec(shipped_files, "int4"))
    for path in shipped_files.folder.glob("*.json"):
        shutil.copy(path, tmp_path)
    shutil.copy(made, tmp_path / "given.gguf")
    files = find_model(Submission(model=str(tmp_path / "given.gguf"), engine="llama-cpp", precision="int4"))
    given = measure(files, "int4", tmp_path / "engine.log", None)
    assert given.held_bytes == given.counted_bytes == measured["int4"].held_bytes
    asked: list[Request] = make_requests(files)
    assert len(given.said) == len(asked)
    check_rows(given.own_rows, parse_config(files.config))


@pytest.mark.parametrize("kind", ["q8_0", "q4_k_m"])
@pytest.mark.parametrize("family", [name for name in MOE_FAMILIES if name != "mixtral"])
def test_every_family_is_counted_to_the_byte(family: str, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Mixtral's converter wants a SentencePiece vocabulary, which these models have not."""
    folder = tmp_path_factory.getbasetemp() / f"family-{family}"
    if not folder.exists():
        write_model(folder, family)
    files, path = find_model(Submission(model=str(folder))), folder / f"{kind}.gguf"
    make_gguf(files, kind, ENGINE.homes()[0], path, folder / "log")
    architecture, file = parse_config(files.config), read_gguf(path)
    stored = gguf_storage(architecture, file, kv=FP16, compute_dtype="int8")
    assert stored.untold == ()
    held = sum(tensor.num_bytes for tensor in file.read_by(architecture.num_layers))
    assert stored_bytes(architecture, stored.plan) == held
