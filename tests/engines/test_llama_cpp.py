"""llama.cpp as people run it, on a processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_cap.measure.engines.base import Completion, Continuation, Request, Session
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.llama_cpp import LlamaCppEngine, recording
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.model_files import ModelFiles
from tests.engines.recorded_runs import SEVERAL, make_shapes
from tests.engines.server_contract import (
    OUTPUT,
    PATIENT,
    SAME_SETS,
    TOGETHER,
    Measured,
    ServerContract,
    make_requests,
    measure,
)
from tests.engines.written_passes import WritingServer, carry_truthfully, of_llama_cpp, told_at_last

ENGINE = LlamaCppEngine(rules=PATIENT)


def greedy_without_end(files: ModelFiles, request: Request) -> tuple[int, ...]:
    """What transformers says where the end token is forbidden, which is what llama-server makes of `ignore_eos`."""
    model = AutoModelForCausalLM.from_pretrained(files.folder, dtype=torch.float32)
    prompt = torch.tensor([request.prompt])
    said = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=OUTPUT,
        suppress_tokens=[model.generation_config.eos_token_id],
    )  # fmt: skip
    return tuple(said[0, prompt.shape[1] :].tolist())


class TestLlamaCpp(ServerContract):
    engine = ENGINE

    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, shipped_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Measured:
        """The random OLMoE says bytes that are no text, and llama-server streams text alone: see below."""
        return measure(cls.engine, shipped_files, tmp_path_factory)

    def test_greedy_tokens_are_those_of_transformers(self, measured: Measured) -> None:
        expected = [greedy_without_end(measured.files, request) for request in measured.requests]
        assert [done.tokens for done in measured.run.completions] == expected

    def test_the_processor_is_told(self, measured: Measured) -> None:
        told = measured.record.arguments
        assert (told["device"], told["devices"]) == ("cpu", [])
        assert told["processor"]


def start_recording(files: ModelFiles, folder: Path) -> ServerSession:
    return ENGINE.start(recording(ENGINE.launch_spec(files, "fp32")), folder / "engine.log")


@pytest.fixture(scope="module")
def writing(shipped_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WritingServer]:
    session = start_recording(shipped_files, tmp_path_factory.mktemp("writing"))
    yield of_llama_cpp(session, shipped_files)
    session.stop()


@pytest.mark.parametrize("equal", [True, False])
def test_passes_of_one_user_are_read_off_the_arrivals(
    writing: WritingServer, shipped_files: ModelFiles, equal: bool
) -> None:
    told_at_last(writing, make_shapes(shipped_files, 1, equal=equal), 1)


@pytest.mark.parametrize("equal", [True, False])
@pytest.mark.parametrize("concurrency", SEVERAL)
def test_passes_of_several_users_are_read_as_llama_cpp_wrote_them_down_or_not_at_all(
    writing: WritingServer, shipped_files: ModelFiles, concurrency: int, equal: bool
) -> None:
    carry_truthfully(writing, make_shapes(shipped_files, concurrency, equal=equal), concurrency)


@pytest.fixture(scope="module")
def olmoe_sessions(
    olmoe_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Session, Session]]:
    folder = tmp_path_factory.mktemp("llama-cpp-olmoe")
    sessions = []
    try:
        for engine in (load_engine("transformers"), ENGINE):
            spec = engine.launch_spec(olmoe_files, "fp32")
            sessions.append(engine.start(spec, folder / f"{engine.name}.log"))
        yield sessions[0], sessions[1]
    finally:
        for session in sessions:
            session.stop()


def test_a_random_olmoe_routes_and_scores_as_in_transformers(
    olmoe_files: ModelFiles, olmoe_sessions: tuple[Session, Session]
) -> None:
    requests = make_requests(olmoe_files)
    theirs, ours = olmoe_sessions
    said: tuple[Completion, ...] = theirs.run(requests, len(requests)).completions
    pairs = zip(theirs.route(requests, said), ours.route(requests, said), strict=True)
    same = [(np.sort(a.experts, axis=-1) == np.sort(b.experts, axis=-1)).all(axis=-1) for a, b in pairs]
    assert np.mean(np.concatenate(same)) >= SAME_SETS
    asked = [Continuation(request.prompt, done.tokens) for request, done in zip(requests, said, strict=True)]
    for a, b in zip(theirs.score(asked), ours.score(asked), strict=True):
        assert b.is_greedy
        assert b.log_probability == pytest.approx(a.log_probability, abs=1e-3)


def test_a_prompt_longer_than_a_pass_is_put_together(shipped_files: ModelFiles, tmp_path: Path) -> None:
    """More tokens than a logical batch: two passes, the second of them cut once more."""
    spec = ENGINE.launch_spec(shipped_files, "fp32")
    small = type(spec)(**{name: getattr(spec, name) for name in spec.__dataclass_fields__} | {
        "argv": (*spec.argv, "--batch-size", "96", "--ubatch-size", "64")
    })  # fmt: skip
    request = Request("long", tuple(4 + (7 * i) % 90 for i in range(250)), 4)
    said = Completion("long", (20, 21, 22, 23), 0.0, (1.0, 2.0, 3.0, 4.0), 4.0)
    rows = []
    for each in (spec, small):
        session = ENGINE.start(each, tmp_path / "engine.log")
        try:
            rows.append(
                (session.route([request], [said])[0], session.score([Continuation(request.prompt, said.tokens)]))
            )
        finally:
            session.stop()
    (whole, score), (cut, cut_score) = rows
    assert whole.experts.shape == cut.experts.shape
    assert (np.sort(whole.experts, axis=-1) == np.sort(cut.experts, axis=-1)).all(axis=-1).mean() >= SAME_SETS
    assert whole.predicted == cut.predicted
    assert score[0].log_probability == pytest.approx(cut_score[0].log_probability, abs=1e-3)


def test_more_users_than_slots_are_refused(shipped_files: ModelFiles, tmp_path: Path) -> None:
    from moe_cap.errors import InvalidRunError

    session = ENGINE.start(ENGINE.launch_spec(shipped_files, "fp32"), tmp_path / "engine.log")
    try:
        with pytest.raises(InvalidRunError, match="65 requests"):
            session.run(make_requests(shipped_files, 65), 65)
        assert len(session.run(make_requests(shipped_files), TOGETHER).completions) == len(make_requests(shipped_files))
    finally:
        session.stop()
