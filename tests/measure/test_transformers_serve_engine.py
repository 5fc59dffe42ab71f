"""How `transformers serve` is started and asked, without starting it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.launched import threads_beside_the_client
from moe_cap.measure.engines.replay import replay_precision
from moe_cap.measure.engines.transformers_serve import ENGINE, SHARED
from moe_cap.measure.engines.transformers_session import before_stop
from moe_cap.measure.engines.watched import Unwatched
from moe_cap.measure.evaluate import _published
from moe_cap.measure.load import Prompt, Target
from moe_cap.measure.load.request import body_of
from moe_cap.measure.model_files import ModelFiles
from tests.measure.test_launched import unstarted


def test_the_launch_specification_is_pure_and_binds_to_the_loopback(tiny_files: ModelFiles) -> None:
    spec = ENGINE.launch_spec(tiny_files, "bf16")
    assert spec == ENGINE.launch_spec(tiny_files, "bf16")
    assert spec.argv[1:5] == ("-m", "transformers.cli.transformers", "serve", str(tiny_files.folder))
    assert spec.argv[-6:] == ("--dtype", "bfloat16", "--host", "127.0.0.1", "--port", "{port}")
    assert "--trust-remote-code" not in spec.argv


def test_one_processor_is_left_to_the_client(tiny_files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert ENGINE.launch_spec(tiny_files, "bf16").environment["OMP_NUM_THREADS"] == "7"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert ENGINE.launch_spec(tiny_files, "bf16").environment["OMP_NUM_THREADS"] == "2"


def test_the_record_says_what_a_server_that_tells_nothing_was_started_with(
    tiny_files: ModelFiles, tmp_path: Path
) -> None:
    record = unstarted(ENGINE, "", tiny_files, tmp_path).describe()
    assert (record.weights_dtype, record.kv_dtype, record.compute_dtype) == ("fp32", "fp32", "fp32")
    published = _published(record, ()).arguments["command"]
    assert published == [
        Path(sys.executable).name, "-m", "transformers.cli.transformers", "serve", tiny_files.folder.name,
        "--dtype", "float32", "--host", "127.0.0.1", "--port", "{port}",
    ]  # fmt: skip
    assert record.arguments["threads"] == threads_beside_the_client()
    assert record.arguments["routing_pass"] == "transformers, in fp32"


@pytest.mark.parametrize(("served", "replayed"), [("fp32", "fp32"), ("bf16", "bf16"), ("int8", "bf16")])
def test_experts_are_replayed_in_the_precision_that_was_served(
    tiny_files: ModelFiles, served: str, replayed: str
) -> None:
    assert replay_precision(tiny_files, served) == replayed


def test_a_checkpoint_that_is_stored_packed_is_replayed_in_bf16(tiny_files: ModelFiles) -> None:
    packed = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    files = replace(tiny_files, config={**tiny_files.config, "quantization_config": packed})
    assert replay_precision(files, "fp32") == "bf16"


def test_an_unknown_precision_is_refused_at_its_field(tiny_files: ModelFiles) -> None:
    with pytest.raises(SubmissionError) as refused:
        ENGINE.launch_spec(tiny_files, "int8")
    assert refused.value.field == "precision"


def test_a_server_is_told_in_its_own_words_to_go_on_after_the_end_token() -> None:
    own = Target("http://127.0.0.1:1/v1", "model", unending={"generation_config": "{}"})
    assert "ignore_eos" not in body_of(own, Prompt("text", 3))
    assert body_of(own, Prompt("text", 3))["generation_config"] == "{}"
    plain = Target("http://127.0.0.1:1/v1", "model", ignore_eos=False, unending={"generation_config": "{}"})
    assert "generation_config" not in body_of(plain, Prompt("text", 3))
    assert body_of(Target("http://127.0.0.1:1/v1", "model"), Prompt("text", 3))["ignore_eos"] is True


def test_passes_that_requests_share_unasked_are_not_told(tiny_files: ModelFiles, tmp_path: Path) -> None:
    session: Any = unstarted(ENGINE, "", tiny_files, tmp_path)
    assert session.watch() == ByArrivals(float("inf"))
    session._spec = replace(session._spec, argv=(*session._spec.argv, "--continuous-batching"))
    assert session.watch() == Unwatched(SHARED)


def test_an_answer_ends_before_the_first_of_its_stop_texts() -> None:
    assert before_stop("one. two\nthree", ["\n", "."]) == "one"
    assert before_stop("one", ["\n"]) == "one"
    assert before_stop("one", []) == "one"
