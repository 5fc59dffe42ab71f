import numpy as np
import pytest

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.base import Completion, EngineStep, Member, RoutingRows
from moe_cap.measure.join import agreement, check_rows, join_steps
from moe_cap.routing import StepKind


def rows(request_id: str, ids: list[list[list[int]]], predicted: tuple[int, ...] = ()) -> RoutingRows:
    return RoutingRows(request_id, np.array(ids, dtype=np.int16), predicted)


def step(kind: StepKind, *members: Member) -> EngineStep:
    return EngineStep(kind, 0.5, members, len(members))


A = rows("a", [[[0, 1], [2, 3]], [[0, 1], [4, 5]], [[6, 7], [2, 3]]])
B = rows("b", [[[0, 2], [2, 3]], [[0, 1], [2, 3]], [[6, 7], [0, 1]]])
TRACE = {"a": A, "b": B}


def test_distinct_experts_are_the_union_over_the_members_of_a_step() -> None:
    prefill, decode = join_steps(
        [
            step(StepKind.PREFILL, Member("a", 0, 2), Member("b", 0, 2)),
            step(StepKind.DECODE, Member("a", 2, 1), Member("b", 2, 1)),
        ],
        TRACE,
    )
    assert prefill.activated_experts == (3.0, 4.0)
    assert (prefill.new_tokens, prefill.context_tokens) == ((2, 2), (2, 2))
    assert decode.activated_experts == (2.0, 4.0)
    assert (decode.new_tokens, decode.context_tokens, decode.step_s) == ((1, 1), (3, 3), 0.5)


def test_without_a_trace_nothing_is_claimed() -> None:
    (only,) = join_steps([step(StepKind.DECODE, Member("a", 2, 1))], None)
    assert only.activated_experts is None


def test_a_token_without_a_row_fails_the_run() -> None:
    with pytest.raises(InvalidRunError, match="position 3, its routing ends at 3"):
        join_steps([step(StepKind.DECODE, Member("a", 3, 1))], TRACE)
    with pytest.raises(InvalidRunError, match="request c"):
        join_steps([step(StepKind.DECODE, Member("c", 0, 1))], TRACE)


def test_agreement_counts_tokens_at_the_same_place() -> None:
    said = Completion("a", (1, 2, 3, 4), 0.0, (1.0, 2.0, 3.0, 4.0), 4.0)
    assert agreement([rows("a", A.experts.tolist(), (1, 9, 3, 9))], {"a": said}) == 0.5


@pytest.mark.parametrize(
    ("ids", "broken"),
    [
        ([[[0, 8], [0, 1]]], "0 <= id < 8"),
        ([[[1, 1], [0, 1]]], "same expert twice"),
        ([[[0, 1]]], "2 MoE layers"),
        ([[[0, 0], [0, 0]], [[0, 0], [0, 0]]], "all zero"),
    ],
)
def test_a_broken_invariant_fails_the_run(tiny_files, ids, broken) -> None:
    architecture = parse_config(dict(tiny_files.config) | {"num_hidden_layers": 2})
    with pytest.raises(InvalidRunError, match=broken):
        check_rows([rows("a", ids)], architecture)
