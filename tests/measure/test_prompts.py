from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.fake import ByteTokenizer
from moe_cap.measure.prompt_cache import BLOCK_TOKENS, NO_OPENING, Numbered
from moe_cap.measure.prompts import (
    Passages,
    Prompts,
    build_dataset_requests,
    build_requests,
    solved_problems,
    worked_examples,
)
from moe_cap.submission import Submission

TEXT = Passages(("one and one is two", "a fox", "x"), "test")


def build(passages: Passages = TEXT, **changes):
    settings = {"name": "level-1", "number": 3, "input_tokens": 20, "output_tokens": 4, "seed": 0} | changes
    return build_requests(passages, ByteTokenizer(), **settings)


@given(length=st.integers(1, 500), number=st.integers(1, 4))
def test_every_prompt_has_exactly_the_length_that_was_asked(length, number) -> None:
    requests = build(input_tokens=length, number=number)
    assert [len(request.prompt) for request in requests] == [length] * number
    assert len({request.id for request in requests}) == number


def test_the_same_seed_gives_the_same_prompts_and_another_seed_others() -> None:
    assert build(input_tokens=200) == build(input_tokens=200)
    assert build(input_tokens=200) != build(input_tokens=200, seed=1)
    assert build(input_tokens=200)[0].prompt != build(input_tokens=200, name="warm-1")[0].prompt


def test_prompts_are_text_of_the_passages() -> None:
    (request,) = build(number=1, input_tokens=300)
    lines = ByteTokenizer().decode(request.prompt).split("\n")[:-1]
    assert set(lines) == set(TEXT.texts)


def test_requests_of_one_level_differ() -> None:
    prompts = {request.prompt for request in build(worked_examples(), number=16, input_tokens=64)}
    assert len(prompts) == 16


def test_no_text_is_an_error() -> None:
    with pytest.raises(InvalidRunError, match="no text"):
        build(Passages(("", ""), "nothing"))


def test_worked_examples_are_long_enough_for_prompts_of_a_thousand_tokens() -> None:
    assert sum(map(len, worked_examples().texts)) > 50_000


def test_solved_problems_hold_question_and_answer() -> None:
    assert "72-17=055" in solved_problems("cap_arithmetic", None).texts
    assert all(text[-1] in "ABCD" for text in solved_problems("cap_choice", None).texts)


PROBLEMS = Passages((), "test", (("four", "4"), ("seventeen", "the answer is 17"), ("x" * 50, "long")), "numbers")


def build_own(passages: Passages = PROBLEMS, **changes):
    settings = {"name": "level-1", "number": 4, "input_tokens": 20, "output_tokens": 8, "seed": 0} | changes
    return build_dataset_requests(passages, ByteTokenizer(), **settings)


def test_requests_of_a_dataset_are_as_long_as_its_problems_and_their_answers() -> None:
    requests = build_own()
    shapes = {(ByteTokenizer().decode(request.prompt), request.output_tokens) for request in requests}
    assert shapes == {("four", 2), ("seventeen", 8)}
    assert len({request.id for request in requests}) == 4


def test_the_same_seed_gives_the_same_problems_and_another_seed_another_order() -> None:
    arithmetic = solved_problems("cap_arithmetic", None)
    assert build_own(arithmetic) == build_own(arithmetic)
    assert build_own(arithmetic) != build_own(arithmetic, seed=1)


def test_a_dataset_without_a_short_enough_problem_is_an_error() -> None:
    with pytest.raises(InvalidRunError, match="no problem of numbers has 3 tokens or fewer"):
        build_own(input_tokens=3)


def numbered(run: str = "run-1", **asked):
    settings = {"model": "o/m", "concurrency": [4], "input_tokens": 64, "output_tokens": 4} | asked
    return Prompts(Submission(**settings), worked_examples(), ByteTokenizer(), Numbered(run))


def test_no_two_prompts_for_a_cache_that_is_not_ours_share_its_first_block() -> None:
    drawn = [
        request.prompt[:BLOCK_TOKENS]
        for run, tokens in (("run-1", 64), ("run-2", 64), ("run-3", 256))
        for name in ("warm-4", "level-4", "level-8")
        for attempt in range(3)
        for request in numbered(run, input_tokens=tokens).draw(name, 16, attempt)
    ]
    assert len(set(drawn)) == len(drawn) == 3 * 3 * 3 * 16


def test_behind_its_number_a_prompt_is_that_of_its_seed_and_as_long_as_was_asked() -> None:
    behind = [prompts.draw("level-4", 4, attempt) for prompts in (numbered(), numbered("run-2")) for attempt in (0, 1)]
    texts = {tuple(request.prompt[14:] for request in requests) for requests in behind}
    assert len(texts) == 1
    assert {len(request.prompt) for requests in behind for request in requests} == {64}
    assert numbered().draw("level-4", 4) == numbered().draw("level-4", 4)


def test_problems_of_their_own_lengths_are_numbered_too() -> None:
    prompts = replace(numbered(lengths="dataset", input_tokens=4000), passages=solved_problems("cap_arithmetic", None))
    first, again = (prompts.draw("level-4", 4, attempt)[0] for attempt in (0, 1))
    assert ByteTokenizer().decode(first.prompt[12:14]) == ". "
    assert first.prompt[14:] == again.prompt[14:]
    assert first.prompt[:12] != again.prompt[:12]
    assert "behind a number of its own" in prompts.told()["prompts"]


def test_a_problem_and_its_number_are_no_longer_than_was_asked() -> None:
    problems = replace(PROBLEMS, problems=(("x" * 26, "1"), ("y" * 27, "2")))
    prompts = replace(numbered(lengths="dataset", input_tokens=40), passages=problems)
    assert {len(request.prompt) for request in prompts.draw("level-4", 8)} == {40}
    assert "each behind a number of its own, prompts up to 40" in prompts.told()["prompts"]


def test_an_engine_whose_cache_is_off_gets_the_same_prompts_in_every_pass() -> None:
    prompts = replace(numbered(), opening=NO_OPENING)
    assert prompts.draw("level-4", 4, 0) == prompts.draw("level-4", 4, 1)
    assert "number" not in prompts.told()["prompts"]
