"""SGLang's formats and command; the fixture was recorded from SGLang 0.5.23 (tests/engines/record_sglang.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidRunError, ServerError, SubmissionError
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.sglang import ENGINE, generate_body, parse_experts, parse_predicted
from moe_cap.measure.engines.sglang_log import IN_TURN, parse_prompt_passes, takes_turns
from moe_cap.measure.engines.turns import PromptPass
from moe_cap.measure.model_files import ModelFiles
from moe_cap.routing import check_routing

FIXTURES = Path(__file__).parent / "fixtures"
FILES = ModelFiles("some-moe", "0", Path("/models/some-moe"), {}, ())


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """One forced request to a server that returns its routing."""
    return dict(json.loads((FIXTURES / "sglang-0.5.23-cpu.json").read_text()))


def test_the_timed_server_is_stock() -> None:
    spec = ENGINE.launch_spec(FILES, "bf16")
    assert spec.argv == (
        "{home}/bin/python", "-m", "sglang.launch_server",
        "--model-path", "/models/some-moe", "--served-model-name", "some-moe",
        "--host", "127.0.0.1", "--port", "{port}", "--dtype", "bfloat16",
        "--disable-radix-cache", "--sampling-defaults", "openai",
    )  # fmt: skip
    assert spec.ready_url == "http://127.0.0.1:{port}/health"
    assert ENGINE.routing_spec(spec).argv == (*spec.argv, "--enable-return-routed-experts")
    assert load_engine("sglang") is ENGINE


def test_a_precision_that_sglang_does_not_offer_is_refused_at_its_field() -> None:
    with pytest.raises(SubmissionError) as refused:
        ENGINE.launch_spec(FILES, "int4")
    assert refused.value.field == "precision"


def test_the_forced_request_is_what_was_recorded(recorded: dict[str, Any]) -> None:
    assert generate_body(recorded["tokens"], len(recorded["prompt"])) == recorded["body"]


def test_recorded_experts_are_whole_and_those_of_transformers(recorded: dict[str, Any]) -> None:
    architecture = parse_config(recorded["config"])
    experts = parse_experts(recorded["answer"], architecture)
    check_routing(
        experts,
        num_experts=architecture.num_experts,
        top_k=architecture.top_k,
        num_layers=len(architecture.moe_layers),
    )
    expected = np.asarray(recorded["transformers_experts"])
    assert experts.shape == expected.shape
    assert (np.sort(experts, axis=-1) == np.sort(expected, axis=-1)).all(axis=-1).mean() >= 0.97


def test_predictions_are_the_tokens_of_the_timed_pass(recorded: dict[str, Any]) -> None:
    assert parse_predicted(recorded["answer"], len(recorded["output"])) == tuple(recorded["output"])


def test_a_single_token_was_predicted_by_the_prompt_alone(recorded: dict[str, Any]) -> None:
    assert parse_predicted(recorded["answer"], 1) == (recorded["output"][-1],)


def test_experts_that_were_not_returned_are_refused(recorded: dict[str, Any]) -> None:
    architecture = parse_config(recorded["config"])
    told = recorded["answer"]["meta_info"]["routed_experts"]
    for broken in (None, "", told[:40], "no base64!"):
        with pytest.raises(InvalidRunError, match="no routed experts"):
            parse_experts({"meta_info": {"routed_experts": broken}}, architecture)
    with pytest.raises(InvalidRunError, match="no routed experts"):
        parse_experts({}, architecture)


def test_predictions_that_are_missing_are_refused(recorded: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="does not tell"):
        parse_predicted(recorded["answer"], 40)
    with pytest.raises(ServerError, match="would have said"):
        parse_predicted({"output_ids": [1], "meta_info": {}}, 3)


SAID = """\
[2026-11-22 22:13:05] Prefill batch, #new-seq: 2, #new-token: 59, #cached-token: 0, token usage: 0.02, \
#running-req: 1, #queue-req: 0, #pending-token: 0, cpu graph: False, input throughput (token/s): 2615.37
[2026-11-22 22:13:45] Decode batch, #running-req: 3, #token: 78, token usage: 0.02, cpu graph: False, gen throughput \
(token/s): 2.36, #queue-req: 0
[2026-11-22 22:13:45 TP0] Prefill batch [17], #new-seq: 1, #new-token: 4096, #cached-token: 0, token usage: 0.03
"""


def test_the_log_lists_the_passes_with_prompts() -> None:
    assert parse_prompt_passes(SAID) == (PromptPass(2, 59), PromptPass(1, 4096))
    assert parse_prompt_passes("The server is fired up and ready to roll!") == ()


def test_passes_are_told_only_under_the_settings_that_make_them_so() -> None:
    assert takes_turns({**IN_TURN, "max_prefill_tokens": 16384})
    assert not takes_turns({})
    for name, other in (
        ("enable_mixed_chunk", True), ("speculative_algorithm", "EAGLE"), ("stream_interval", 8), ("dp_size", 2),
        ("pp_size", 2), ("disaggregation_mode", "decode"),
    ):  # fmt: skip
        assert not takes_turns({**IN_TURN, name: other})


def test_an_unset_setting_is_not_told_and_any_other_must_be() -> None:
    for left_out, unset in IN_TURN.items():
        assert takes_turns({name: value for name, value in IN_TURN.items() if name != left_out}) is (unset is None)
