"""Closed forms of what attention reads and scores equal counting position by position."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.architecture.reach import Chunk, Full, Reach, Selected, Strided, Window

SIZES = st.integers(1, 20)
CASES: dict[str, tuple[Callable[[int], Reach], Callable[[int, int], set[int]]]] = {
    "full": (lambda _: Full(), lambda _, token: set(range(1, token + 1))),
    "window": (Window, lambda size, token: set(range(max(1, token - size + 1), token + 1))),
    "chunk": (Chunk, lambda size, token: set(range((token - 1) // size * size + 1, token + 1))),
    "strided": (Strided, lambda size, token: set(range(1, token // size + 1))),
}


@pytest.mark.parametrize("kind", CASES)
@given(size=SIZES, before=st.integers(0, 60), new=st.integers(1, 40))
def test_reads_and_scores_equal_counting(kind: str, size: int, before: int, new: int) -> None:
    make, positions = CASES[kind]
    reach, context = make(size), before + new
    tokens = range(before + 1, context + 1)
    assert reach.attended(context, new) == sum(len(positions(size, token)) for token in tokens)
    assert reach.read(context, new) == len(set().union(*(positions(size, token) for token in tokens)))
    assert reach.read(context, 0) == 0 or kind == "strided"
    assert reach.cached(context) <= context


@given(size=SIZES, stride=SIZES, before=st.integers(0, 60), new=st.integers(1, 40))
def test_picks_are_bounded_by_what_there_is(size: int, stride: int, before: int, new: int) -> None:
    context = before + new
    tokens = range(before + 1, context + 1)
    assert Selected(size).attended(context, new) == sum(min(size, token) for token in tokens)
    assert Selected(size).read(context, 1) == min(size, context)
    assert Strided(stride, size).attended(context, new) == sum(min(size, token // stride) for token in tokens)
    assert Strided(stride, size).read(context, 1) == min(size, context // stride)
