"""What every engine owes to the measuring walk; a suite per engine inherits it and gives the fixtures.

`EngineContract` holds for every engine, a server among them. One that tells its steps inherits `StepContract`, one that
runs fixed batches `LockStepContract`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidRunError, SubmissionError
from moe_cap.measure.engines.base import Continuation, Engine, Request, Session
from moe_cap.measure.join import agreement, check_rows, join_steps
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.model_files import ModelFiles
from moe_cap.routing import StepKind

PROMPT, OUTPUT = 12, 5


def make_requests(number: int, *, prompt: int = PROMPT, output: int = OUTPUT) -> list[Request]:
    return [Request(f"r{i}", tuple((17 * i + 5 * j) % 250 + 1 for j in range(prompt)), output) for i in range(number)]


class EngineContract:
    engine: Engine
    precision = "fp32"
    score_tolerance = 1e-4

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, tiny_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Session:
        log = tmp_path_factory.mktemp("engine") / "engine.log"
        return cls.engine.start(cls.engine.launch_spec(tiny_files, cls.precision), log)

    def test_probe_tells_version_and_routing(self) -> None:
        found = self.engine.probe()
        assert found.installed
        assert found.reason is None
        assert found.version
        assert found.routing is not None

    def test_an_unknown_precision_is_refused_at_its_field(self, tiny_files: ModelFiles) -> None:
        with pytest.raises(SubmissionError) as refused:
            self.engine.launch_spec(tiny_files, "fp1")
        assert refused.value.field == "precision"

    def test_every_request_is_answered_in_full_with_a_time_per_token(self, session: Session) -> None:
        requests = make_requests(4)
        run = session.run(requests, 2)
        check_lengths(requests, run.completions)
        for completion in run.completions:
            times = [completion.sent_s, *completion.token_s, completion.ended_s]
            assert times == sorted(times)
            assert run.started_s <= completion.sent_s
            assert completion.ended_s <= run.ended_s

    def test_the_same_requests_give_the_same_tokens(self, session: Session) -> None:
        requests = make_requests(2)
        first, second = (session.run(requests, 2).completions for _ in range(2))
        assert [done.tokens for done in first] == [done.tokens for done in second]

    def test_warm_up_leaves_no_trace_in_the_next_pass(self, session: Session) -> None:
        requests = make_requests(2)
        session.warm_up(requests, 2)
        assert [done.request_id for done in session.run(requests, 2).completions] == ["r0", "r1"]

    def test_the_routing_pass_goes_over_the_same_tokens(self, session: Session, tiny_files: ModelFiles) -> None:
        architecture = parse_config(tiny_files.config)
        requests = make_requests(2)
        run = session.run(requests, 2)
        rows = session.route(requests, run.completions)
        assert [trace.request_id for trace in rows] == ["r0", "r1"]
        assert rows[0].experts.shape == (PROMPT + OUTPUT - 1, len(architecture.moe_layers), architecture.top_k)
        check_rows(rows, architecture)
        assert agreement(rows, {done.request_id: done for done in run.completions}) == 1.0

    def test_forced_tokens_are_followed_even_where_the_engine_would_say_others(self, session: Session) -> None:
        requests = make_requests(1)
        run = session.run(requests, 1)
        said = run.completions[0]
        other = tuple((token + 1) % 250 for token in said.tokens)
        forced = type(said)(said.request_id, other, said.sent_s, said.token_s, said.ended_s)
        (own,), (foreign,) = session.route(requests, [said]), session.route(requests, [forced])
        assert foreign.predicted[0] == said.tokens[0]
        assert np.array_equal(own.experts[:PROMPT], foreign.experts[:PROMPT])
        assert not np.array_equal(own.experts[PROMPT:], foreign.experts[PROMPT:])
        assert agreement([foreign], {"r0": forced}) < 1.0

    def test_the_greedy_continuation_scores_as_greedy_and_higher(self, session: Session) -> None:
        (request,) = make_requests(1)
        said = session.run([request], 1).completions[0].tokens
        other = (*said[:-1], (said[-1] + 1) % 250)
        greedy, foreign = session.score([Continuation(request.prompt, said), Continuation(request.prompt, other)])
        assert greedy.is_greedy
        assert not foreign.is_greedy
        assert foreign.log_probability < greedy.log_probability < 0

    def test_a_score_does_not_depend_on_its_batch(self, session: Session) -> None:
        short = Continuation((5, 6, 7), (8,))
        alone = session.score([short])[0]
        beside = session.score([Continuation(tuple(range(1, 30)), (3, 4)), short])[1]
        assert beside.log_probability == pytest.approx(alone.log_probability, abs=self.score_tolerance)

    def test_an_answer_ends_before_its_stop_text(self, session: Session) -> None:
        prompt = session.tokenizer.encode("the quick brown fox")
        (whole,) = session.answer([prompt], stop=[], max_tokens=16)
        middle = whole[len(whole) // 2]
        (cut,) = session.answer([prompt], stop=[middle], max_tokens=16)
        assert cut == whole.partition(middle)[0]

    def test_the_engine_describes_itself(self, session: Session, tiny_files: ModelFiles) -> None:
        record = session.describe()
        assert record.name == self.engine.name
        assert record.version == self.engine.probe().version
        assert record.weights_dtype == self.precision
        assert record.compute_dtype == session.storage(parse_config(tiny_files.config)).compute_dtype
        assert session.weights_bytes() > 0

    def test_stop_may_be_called_twice(self, tiny_files: ModelFiles, tmp_path: Path) -> None:
        session = self.engine.start(self.engine.launch_spec(tiny_files, self.precision), tmp_path / "engine.log")
        session.stop()
        session.stop()


class StepContract(EngineContract):
    """Of an engine that tells who was in every forward pass."""

    def test_members_of_the_steps_cover_every_position_once(self, session: Session) -> None:
        requests = make_requests(4)
        positions: dict[str, list[int]] = {request.id: [] for request in requests}
        for step in session.run(requests, 2).steps:
            for member in step.members:
                positions[member.request_id] += range(member.first_position, member.first_position + member.num_tokens)
        assert all(sorted(found) == list(range(PROMPT + OUTPUT - 1)) for found in positions.values())

    def test_steps_take_no_longer_than_the_run(self, session: Session) -> None:
        run = session.run(make_requests(2), 1)
        assert all(step.step_s > 0 for step in run.steps)
        assert sum(step.step_s for step in run.steps) <= run.ended_s - run.started_s + 1e-9

    def test_steps_and_rows_join(self, session: Session, tiny_files: ModelFiles) -> None:
        architecture = parse_config(tiny_files.config)
        requests = make_requests(1)
        run = session.run(requests, 1)
        steps = join_steps(run.steps, {rows.request_id: rows for rows in session.route(requests, run.completions)})
        for step in steps[1:]:
            assert step.activated_experts == (float(architecture.top_k),) * len(architecture.moe_layers)


class LockStepContract(StepContract):
    """Of an engine whose batches start and end together."""

    def test_prefill_and_decode_are_apart(self, session: Session) -> None:
        steps = session.run(make_requests(2), 2).steps
        assert [step.kind for step in steps] == [StepKind.PREFILL] + [StepKind.DECODE] * (OUTPUT - 1)
        assert [step.logit_rows for step in steps] == [2] * OUTPUT

    def test_a_batch_of_different_lengths_is_refused(self, session: Session) -> None:
        with pytest.raises(InvalidRunError, match="differ in length"):
            session.run([*make_requests(1), Request("long", (1,) * (PROMPT + 1), OUTPUT)], 2)
