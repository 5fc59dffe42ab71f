"""The client runs ahead of the server's threads where it may, and says so."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from moe_cap.measure.load.scheduling import FIRST, NOT_PERMITTED, ahead_of_others


def test_the_class_is_given_back_whatever_happens() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(RuntimeError, match="in the middle"), ahead_of_others() as said:
        expected = {FIRST: os.SCHED_RR, NOT_PERMITTED: before}
        assert os.sched_getscheduler(0) == expected[said]
        raise RuntimeError("in the middle")
    assert os.sched_getscheduler(0) == before


def test_without_the_permission_everything_stays_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with ahead_of_others() as said:
        assert said == NOT_PERMITTED
