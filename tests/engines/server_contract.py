"""What a real server owes: transformers' tokens, transformers' experts, whole counts. A suite per engine inherits it.

Everything is measured once per model; the tests then look at it. In fp32, so that the arithmetic of two engines differs
by rounding alone and the comparison is of the models that they built.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from moe_cap.architecture import Architecture, parse_config
from moe_cap.measure.engines.base import Continuation, EngineRun, Request, RoutingRows, Score
from moe_cap.measure.engines.launched import ServerEngine
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.join import agreement, check_rows, join_steps
from moe_cap.measure.load import Rules
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.model_files import ModelFiles
from moe_cap.result import EngineRecord

PROMPT, OUTPUT, NUMBER, TOGETHER = 24, 16, 6, 3
PATIENT = Rules(max_lag_s=10.0, max_beat_lag_s=10.0)
"""The machine that tests is not one that measures."""
SAME_SETS = 0.97


@dataclass(frozen=True)
class Measured:
    """One engine with one model, and transformers with the same tokens."""

    files: ModelFiles
    architecture: Architecture
    requests: Sequence[Request]
    run: EngineRun
    record: EngineRecord
    answers: list[str]
    scores: list[Score]
    rows: Sequence[RoutingRows]
    reference_tokens: list[tuple[int, ...]]
    reference_rows: Sequence[RoutingRows]
    reference_scores: list[Score]

    @property
    def same_sets(self) -> float:
        """Share of (token, layer) pairs that both sent to the same experts."""
        same = [
            (np.sort(ours.experts, axis=-1) == np.sort(theirs.experts, axis=-1)).all(axis=-1)
            for ours, theirs in zip(self.rows, self.reference_rows, strict=True)
        ]
        return float(np.mean(np.concatenate(same)))


def make_requests(files: ModelFiles, number: int = NUMBER) -> list[Request]:
    last = files.config["vocab_size"] - 3
    return [Request(f"r{i}", tuple((17 * i + 5 * j) % last + 3 for j in range(PROMPT)), OUTPUT) for i in range(number)]


def measure(engine: ServerEngine, files: ModelFiles, folder: pytest.TempPathFactory) -> Measured:
    log = folder.mktemp(engine.name) / "engine.log"
    requests = make_requests(files)
    reference = load_engine("transformers")
    with closing(
        _Stopping(reference.start(reference.launch_spec(files, "fp32"), log.with_name("reference.log")))
    ) as by:
        expected = by.session.run(requests, NUMBER).completions
        with closing(_Stopping(engine.start(engine.launch_spec(files, "fp32"), log))) as ours:
            session = ours.session
            run = session.run(requests, TOGETHER)
            said = [Continuation(request.prompt, done.tokens) for request, done in zip(requests, expected, strict=True)]
            scores, answers = session.score(said), session.answer([requests[0].prompt], stop=[], max_tokens=8)
            record, rows = session.describe(), session.route(requests, run.completions)
        return Measured(
            files=files,
            architecture=parse_config(files.config),
            requests=requests,
            run=run,
            record=record,
            answers=answers,
            scores=scores,
            rows=rows,
            reference_tokens=[done.tokens for done in expected],
            reference_rows=by.session.route(requests, run.completions),
            reference_scores=by.session.score(said),
        )


class _Stopping:
    def __init__(self, session: object) -> None:
        self.session: object = session

    def close(self) -> None:
        self.session.stop()


class ServerContract:
    engine: ServerEngine
    instead: ClassVar[dict[str, str]] = {}
    """The same model in a shape that this engine has kernels for on a processor."""

    @pytest.fixture(scope="class", params=["shipped_files", "olmoe_files"])
    @classmethod
    def measured(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Measured:
        model = request.getfixturevalue(cls.instead.get(request.param, request.param))
        return measure(cls.engine, model, tmp_path_factory)

    def test_greedy_tokens_are_those_of_transformers(self, measured: Measured) -> None:
        assert [done.tokens for done in measured.run.completions] == measured.reference_tokens

    def test_experts_are_those_of_transformers(self, measured: Measured) -> None:
        print(f"\n{self.engine.name}, {measured.files.name}: {measured.same_sets:.4f} of the sets are the same")
        assert measured.same_sets >= SAME_SETS

    def test_the_trace_breaks_no_invariant(self, measured: Measured) -> None:
        check_rows(measured.rows, measured.architecture)
        assert {len(rows.experts) for rows in measured.rows} == {PROMPT + OUTPUT - 1}

    def test_the_routing_pass_would_have_said_the_same(self, measured: Measured) -> None:
        assert agreement(measured.rows, {done.request_id: done for done in measured.run.completions}) >= SAME_SETS

    def test_every_request_is_answered_in_full_with_a_time_per_token(self, measured: Measured) -> None:
        check_lengths(measured.requests, measured.run.completions)
        for done in measured.run.completions:
            times = [measured.run.started_s, done.sent_s, *done.token_s, done.ended_s, measured.run.ended_s]
            assert times == sorted(times)

    def test_steps_where_told_cover_every_position_once_and_join(self, measured: Measured) -> None:
        steps = measured.run.steps
        if not steps:
            pytest.skip("the arrivals did not tell the passes: the machine was busy, or the engine does not give them")
        positions = sorted(
            (member.request_id, position)
            for step in steps
            for member in step.members
            for position in range(member.first_position, member.first_position + member.num_tokens)
        )
        assert positions == sorted((r.id, p) for r in measured.requests for p in range(PROMPT + OUTPUT - 1))
        for step in join_steps(steps, {rows.request_id: rows for rows in measured.rows}):
            assert min(step.routing_for(measured.architecture)) >= measured.architecture.top_k

    def test_scores_are_those_of_transformers(self, measured: Measured) -> None:
        for ours, theirs in zip(measured.scores, measured.reference_scores, strict=True):
            assert ours.is_greedy
            assert ours.log_probability == pytest.approx(theirs.log_probability, abs=1e-3)

    def test_the_engine_describes_itself(self, measured: Measured) -> None:
        record = measured.record
        assert record.name == self.engine.name
        assert record.version == self.engine.probe().version
        assert (record.weights_dtype, record.compute_dtype) == ("fp32", "fp32")
        assert record.arguments

    def test_answers_are_text(self, measured: Measured) -> None:
        (answer,) = measured.answers
        assert isinstance(answer, str)
