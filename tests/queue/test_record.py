"""The bytes of a record, and the steps from one to the next."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.errors import RecordError, RequestStateError
from moe_cap.queue import Attempt, Lease, Outcome, Progress, Request, State, transitions
from moe_cap.queue.record import parse_path, parse_request, request_bytes

times = st.floats(0, 1e10)
texts = st.text(max_size=20)
progress = st.builds(
    Progress, texts, st.none() | st.floats(0, 1), st.none() | times, st.lists(texts, max_size=3).map(tuple)
)
attempts = st.builds(Attempt, texts, texts, times, times, st.sampled_from(Outcome), st.none() | texts)
leases = st.builds(Lease, texts, texts, times, times, texts, st.none() | progress)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
requests = st.builds(
    Request,
    id=st.from_regex(r"[0-9a-z][0-9a-z-]{3,20}", fullmatch=True),
    state=st.sampled_from(State),
    submission=st.dictionaries(texts, json_values, max_size=4),
    submitted_at=times,
    ticket=texts,
    attempts=st.integers(0, 5),
    reason=st.none() | texts,
    result_ids=st.lists(texts, max_size=3).map(tuple),
    ended_at=st.none() | times,
    history=st.lists(attempts, max_size=3).map(tuple),
).flatmap(lambda r: leases.map(lambda lease: replace(r, lease=lease)) if r.state is State.RUNNING else st.just(r))


@settings(deadline=None)
@given(requests)
def test_record_comes_back_as_it_was_written(request_: Request) -> None:
    assert parse_request(request_bytes(request_), request_.path) == request_


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_record_or_a_named_error(data: bytes) -> None:
    with pytest.raises(RecordError) as refused:
        parse_request(data, "pending/ab/abcd.json")
    assert refused.value.path == "pending/ab/abcd.json"


@pytest.mark.parametrize(
    "path",
    [
        *("pending/abcd.json", "pending/xx/abcd.json", "pending/ab/abcd", "nowhere/ab/abcd.json", "pending/ab/AB.json"),
        *("pending/ab/x/abcd.json", "pending/ab/abcd.json.bak", "README.md", "pending/../abcd.json"),
    ],
)
def test_path_of_something_else_is_refused(path: str) -> None:
    with pytest.raises(RecordError):
        parse_path(path)


def running(**more: object) -> Request:
    lease = Lease("lease", "w", 0.0, 10.0, "beat")
    return replace(Request("abcd", State.RUNNING, {}, 0.0, "ticket", attempts=1, lease=lease), **more)


def test_progress_is_cut_to_what_a_record_can_bear() -> None:
    said = Progress("timing", math.nan, math.inf, tuple(f"{number} " + "x" * 1000 for number in range(100)))
    kept = transitions.renewed(running(), said, now_s=1.0, lease_s=10.0, beat="b").lease.progress
    assert (kept.fraction, kept.eta_s) == (None, None)
    assert [line.split()[0] for line in kept.log_tail] == [str(number) for number in range(80, 100)]
    assert max(map(len, kept.log_tail)) == 300


@pytest.mark.parametrize(("said", "kept"), [(-0.1, 0.0), (0.5, 0.5), (1.5, 1.0), (None, None)])
def test_fraction_is_between_nothing_and_all(said: float | None, kept: float | None) -> None:
    now = transitions.renewed(running(), Progress("x", said), now_s=1.0, lease_s=1.0, beat="b")
    assert now.lease.progress.fraction == kept


def test_reason_is_cut() -> None:
    assert len(transitions.failed(running(), "x" * 9999, now_s=1.0, attempts_left=False).reason) == 4000


def test_only_a_running_request_can_end() -> None:
    waiting = replace(running(), state=State.PENDING, lease=None)
    with pytest.raises(RequestStateError):
        transitions.finished(waiting, [], now_s=1.0)
