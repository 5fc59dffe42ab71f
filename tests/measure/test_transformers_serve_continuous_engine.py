"""How `transformers serve` is started for continuous batches, and what is refused before a request is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_cap.errors import InvalidRunError, SubmissionError
from moe_cap.measure.engines import endpoint_session, transformers_serve
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.transformers_serve_continuous import BLOCK_TOKENS, ENGINE
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from tests.measure.test_launched import answered, unstarted


def test_it_is_the_same_server_with_a_cache_of_a_set_size(tiny_files: ModelFiles) -> None:
    plain = transformers_serve.ENGINE.launch_spec(tiny_files, "bf16")
    spec = ENGINE.launch_spec(tiny_files, "bf16")
    assert spec.argv[: len(plain.argv)] == plain.argv
    assert spec.argv[len(plain.argv)] == "--continuous-batching"
    assert {"--cb-block-size", "--cb-num-blocks", "--cb-max-batch-tokens"} <= set(spec.argv)
    assert spec.environment == plain.environment
    assert ENGINES[ENGINE.name].environment == "transformers-serve" == ENGINE.homes()[0].name
    with pytest.raises(SubmissionError):
        ENGINE.launch_spec(tiny_files, "int4")


def test_a_prompt_that_fills_a_shared_block_is_refused(tiny_files: ModelFiles, tmp_path: Path) -> None:
    session = unstarted(ENGINE, "", tiny_files, tmp_path)
    with pytest.raises(InvalidRunError, match="fills a block of 2048 tokens"):
        session.run([Request("long", (65,) * BLOCK_TOKENS, 2)], 1)


@pytest.mark.parametrize(
    "given",
    [("--cb-max-batch-tokens", "256", "--cb-block-size", "8"), ("--cb-max-batch-tokens=256", "--cb-block-size=8")],
)
def test_sizes_that_a_person_gives_stand_in_the_place_of_ours(
    tiny_files: ModelFiles, tmp_path: Path, given: tuple[str, ...]
) -> None:
    session: Any = unstarted(ENGINE, "", tiny_files, tmp_path)
    assert session.watch() == ByArrivals(2048)
    session._spec = replace(session._spec, argv=(*session._spec.argv, *given))
    assert session.watch() == ByArrivals(256), "a prompt of 300 tokens may be cut"
    with pytest.raises(InvalidRunError, match="fills a block of 8 tokens"):
        session.run([Request("long", (65,) * 8, 2)], 1)


def test_answers_and_timed_requests_never_meet_on_one_server(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_session, "run_load", answered)
    session: Any = unstarted(ENGINE, "", tiny_files, tmp_path)
    session.run([Request("first", (65,), 2)], 1)
    session.answer([[65]], stop=(), max_tokens=2)
    session.answer([[65]], stop=(), max_tokens=2)
    session.run([Request("second", (65,), 2)], 1)
    first, answering, again, second = session.served
    assert first is second is session._spec
    assert answering is again is not first
    assert answering == first
