"""How `transformers serve` is started and asked, without starting it."""

from __future__ import annotations

import pytest

from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.transformers_serve import ENGINE, _before
from moe_cap.measure.load import Prompt, Target
from moe_cap.measure.load.request import body_of
from moe_cap.measure.model_files import ModelFiles


def test_the_launch_specification_is_pure_and_binds_to_the_loopback(tiny_files: ModelFiles) -> None:
    spec = ENGINE.launch_spec(tiny_files, "bf16")
    assert spec == ENGINE.launch_spec(tiny_files, "bf16")
    assert spec.argv[1:5] == ("-m", "transformers.cli.transformers", "serve", str(tiny_files.folder))
    assert spec.argv[-6:] == ("--dtype", "bfloat16", "--host", "127.0.0.1", "--port", "{port}")
    assert "--trust-remote-code" not in spec.argv


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


def test_an_answer_ends_before_the_first_of_its_stop_texts() -> None:
    assert _before("one. two\nthree", ["\n", "."]) == "one"
    assert _before("one", ["\n"]) == "one"
    assert _before("one", []) == "one"
