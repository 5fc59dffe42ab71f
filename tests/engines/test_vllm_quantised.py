"""vLLM on a processor with checkpoints that are stored quantised, held against transformers with their plain twins.

vLLM 0.32 has kernels for packed attention there; for packed experts it asks for AMX, so theirs stay plain here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moe_cap.architecture import parse_config
from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.base import Continuation
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.measure.random_weights import write_random_model
from moe_cap.precision import stored_bytes
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED
from tests.engines.quantised_models import write_quantised, write_unpacked
from tests.engines.server_contract import make_requests
from tests.engines.test_vllm import ENGINE

KERNELS = {"int4": "CPUWNA16LinearKernel", "int8": "CPUInt8ScaledMMLinearKernel"}
CLOSE = {"int4": 0.15, "int8": 0.3}
"""Natural logarithms over three tokens whose logits are bf16, in steps of 0.06; vLLM also rounds int8's activations."""
HEADS_OF_32 = {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8")) | HEADS_OF_32
    return write_random_model(config, SHIPPED, tmp_path_factory.mktemp("plain") / "plain")


def found(folder: Path) -> ModelFiles:
    return find_model(Submission(model=str(folder)))


def reference(folder: Path, asked: list[Continuation]) -> list[float]:
    engine = load_engine("transformers")
    session = engine.start(engine.launch_spec(found(folder), "bf16"), folder / "reference.log")
    try:
        return [score.log_probability for score in session.score(asked)]
    finally:
        session.stop()


@pytest.mark.parametrize("precision", KERNELS)
def test_a_packed_checkpoint_says_what_its_plain_twin_says(precision: str, plain: Path, tmp_path: Path) -> None:
    folder = write_quantised(plain, tmp_path / precision, precision, experts=False)
    files = found(folder)
    requests = make_requests(files)
    asked = [Continuation(request.prompt, (5, 9, 22)) for request in requests]
    session = ENGINE.start(ENGINE.launch_spec(files, precision), tmp_path / "engine.log")
    try:
        scores = [score.log_probability for score in session.score(asked)]
        record, held = session.describe(), session.weights_bytes()
        counted = stored_bytes(architecture := parse_config(files.config), session.storage(architecture))
    finally:
        session.stop()
    assert held == counted
    assert record.arguments["quantization"] == "compressed-tensors"
    assert (record.weights_dtype, record.compute_dtype) == (precision, "bf16")
    assert record.quantisation is not None
    assert KERNELS[precision] in record.quantisation
    assert scores == pytest.approx(reference(write_unpacked(folder, tmp_path / "twin"), asked), abs=CLOSE[precision])


def test_the_same_checkpoint_by_another_name_is_refused_before_anything_starts(plain: Path, tmp_path: Path) -> None:
    files = found(write_quantised(plain, tmp_path / "int4", "int4", experts=False))
    with pytest.raises(SubmissionError, match="stored in int4"):
        ENGINE.launch_spec(files, "bf16")
    with pytest.raises(SubmissionError, match="packs nothing"):
        ENGINE.launch_spec(found(plain), "int4")
