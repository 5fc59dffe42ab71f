"""How `transformers serve` is started for continuous batches, and what is refused before a request is sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moe_cap.errors import InvalidRunError, SubmissionError
from moe_cap.measure.engines import transformers_serve, transformers_serve_continuous
from moe_cap.measure.engines.base import LaunchSpec, Request
from moe_cap.measure.engines.transformers_serve_continuous import BLOCK_TOKENS, ENGINE
from moe_cap.measure.load import ClosedLoop
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES


class Unstarted(transformers_serve_continuous.TransformersServeContinuousSession):
    """A session that notes which server it wanted."""

    def __init__(self, spec: LaunchSpec) -> None:
        self._spec = self._serving = spec
        self._tokenizer = SimpleNamespace(decode=str, encode=list)
        self.served: list[LaunchSpec] = []

    def serve(self, spec: LaunchSpec) -> None:
        self.served.append(spec)
        self._serving = spec


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


def test_a_prompt_that_fills_a_shared_block_is_refused(tiny_files: ModelFiles) -> None:
    session = Unstarted(ENGINE.launch_spec(tiny_files, "bf16"))
    with pytest.raises(InvalidRunError, match="fills a block of 2048 tokens"):
        session._load([Request("long", (1,) * BLOCK_TOKENS, 2)], ClosedLoop(1))
    assert not session.served


def test_answers_and_timed_requests_never_meet_on_one_server(
    tiny_files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent: Any = transformers_serve.TransformersServeSession
    monkeypatch.setattr(parent, "_load", lambda *_: None)
    monkeypatch.setattr(parent, "answer", lambda *_, **__: [])
    timed = ENGINE.launch_spec(tiny_files, "bf16")
    session = Unstarted(timed)
    session._load([Request("first", (1,), 2)], ClosedLoop(1))
    session.answer([[1]], stop=(), max_tokens=2)
    session.answer([[1]], stop=(), max_tokens=2)
    session._load([Request("second", (1,), 2)], ClosedLoop(1))
    first, answering, second = session.served
    assert first is timed
    assert answering is not timed
    assert answering == timed
    assert second is timed
