"""The form: every field looked at, each message beside its own field, nothing stored on the way."""

from types import SimpleNamespace

import pytest

from moe_cap.errors import BusyError, DuplicateSubmissionError, OutcomeUnknownError, SubmissionError
from moe_cap.queue import Queue
from moe_cap.results import ResultStore
from moe_cap.store import MemoryStore
from moe_cap.web.form import parse_form
from moe_cap.web.snapshot import Mirror
from moe_cap.web.submit import EXAMPLE, Desk
from tests.web.test_routes import NOON


def found(*problems: tuple[str, str]) -> SimpleNamespace:
    return SimpleNamespace(
        problems=problems, warnings=("slow",), model_type="qwen3_moe", parameters_total=5e6, parameters_active=2e6,
        weights_bytes=1e7, kv_bytes=2e6, memory_bytes=25e9, fits=True, eta_s=75.0, eta_basis="the probe",
    )  # fmt: skip


def desk(*problems: tuple[str, str]) -> Desk:
    queue = Queue(MemoryStore(), lease_s=600)
    mirror = Mirror(ResultStore(MemoryStore()), queue, now=lambda: NOON, every_s=60)
    return Desk(lambda _: found(*problems), queue, mirror)


def test_the_example_is_a_submission() -> None:
    asked, problems = parse_form(EXAMPLE)
    assert problems == {}
    assert asked is not None
    assert asked.concurrency == (1, 4)


def test_fields_that_may_be_left_out_are_taken_as_typed() -> None:
    asked, _ = parse_form({**EXAMPLE, "num_requests": "", "accuracy_limit": " 20 ", "hardware": ""})
    assert asked is not None
    assert (asked.num_requests, asked.accuracy_limit, asked.hardware) == (None, 20, None)


@pytest.mark.parametrize("text", ["1,4,16", "1 4 16", " 1; 4,, 16 ", "16, 4, 1, 4"])
def test_levels_are_taken_in_any_usual_writing(text: str) -> None:
    asked, _ = parse_form({**EXAMPLE, "concurrency": text})
    assert asked is not None
    assert asked.concurrency == (1, 4, 16)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""), ("model", "nothing like it"), ("model", "a/b/c/d"), ("revision", "../up"), ("concurrency", "x"),
        ("concurrency", "0"), ("concurrency", ""), ("concurrency", "1.5"), ("concurrency", "²"),
        ("concurrency", "9" * 5000), ("output_tokens", 1), ("output_tokens", None),
        ("input_tokens", -3), ("input_tokens", 1.5), ("tasks", ["rm -rf"]), ("precision", "bf 16"), ("repeats", 0),
        ("accuracy_limit", "ten"), ("accuracy_limit", "²"), ("num_requests", "0"), ("num_requests", "9" * 5000),
        ("hardware", "x" * 200),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_at_its_own_field(field: str, value: object) -> None:
    asked, problems = parse_form({**EXAMPLE, field: value})
    assert asked is None
    assert list(problems) == [field]
    assert not problems[field][0].islower()
    assert problems[field].endswith(".")


def test_all_wrong_fields_are_told_at_once() -> None:
    _, problems = parse_form({**EXAMPLE, "model": "", "concurrency": "x", "output_tokens": 1})
    assert set(problems) == {"model", "concurrency", "output_tokens"}


def test_what_the_preflight_finds_stands_beside_the_field_and_nothing_is_stored() -> None:
    at = desk(("model", "there is no such folder"), ("hardware", "unknown"))
    panel, problems = at.hand_in(EXAMPLE)
    assert problems == {"model": "there is no such folder", "hardware": "unknown"}
    assert "hardware: unknown" in panel  # the form has no such field
    assert at.mirror.look().requests == ()


def test_the_same_submission_twice_points_at_the_first() -> None:
    at = desk()
    first, _ = at.hand_in(EXAMPLE)
    second, _ = at.hand_in(EXAMPLE)
    (request,) = at.mirror.look().requests
    assert f"Request <code>{request.id}</code>" in first
    assert 'data-state="duplicate"' in second
    assert request.id in second


@pytest.mark.parametrize(
    ("error", "state"),
    [(BusyError("try later", wait_s=1), "trouble"), (OutcomeUnknownError("lost answer"), "unknown")],
)
def test_a_store_that_refuses_is_told_as_what_it_is(error: Exception, state: str) -> None:
    def submit(body: object, *, request_id: str) -> None:
        raise error

    at = desk()
    panel, _ = Desk(at.check, SimpleNamespace(submit=submit), at.mirror).hand_in(EXAMPLE)
    assert f'data-state="{state}"' in panel
    assert str(error) in panel


def test_a_program_hears_the_field_and_the_first_request() -> None:
    at = desk()
    body = {"model": "a/b"}
    request_id = at.take(body)
    with pytest.raises(DuplicateSubmissionError) as told:
        at.take(body)
    assert told.value.request_id == request_id
    with pytest.raises(SubmissionError, match="no such model"):
        desk(("model", "no such model")).take(body)
