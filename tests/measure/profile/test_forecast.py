"""What is left of a profile: told by what it measured itself, or not at all."""

import pytest

from moe_cap.measure.profile.forecast import Forecast, Left

PLAN = {"loading": 3.0, "warm-up batch 1": 1.0, "timing batch 1 (1/2)": 10.0, "timing batch 1 (2/2)": 10.0,
        "routing batch 1": 15.0, "writing": 1.0}  # fmt: skip
TOOK_S = {"loading": 7.0, "warm-up batch 1": 2.0, "timing batch 1 (1/2)": 40.0, "timing batch 1 (2/2)": 40.0,
          "routing batch 1": 5.0, "writing": 0.5}  # fmt: skip


class Walk:
    """Cells whose stages take exactly what `TOOK_S` says."""

    def __init__(self, *plans: dict[str, float]) -> None:
        self.now_s = 100.0
        self.forecast = Forecast(plans, lambda: self.now_s)
        self.forecast.begin_cell()

    def through(self, *stages: str) -> None:
        for stage in stages:
            assert self.forecast.hear(stage, None)
            self.now_s += TOOK_S[stage]


def test_nothing_is_told_before_a_timed_stage_has_ended_or_tells_how_far_it_is() -> None:
    walk = Walk(PLAN)
    assert walk.forecast.left() is None
    walk.through("loading", "warm-up batch 1", "timing batch 1 (1/2)")
    assert walk.forecast.left() is None
    assert walk.forecast.done_share() is None


def test_a_kind_that_was_not_measured_makes_it_a_lower_bound() -> None:
    walk = Walk(PLAN)
    walk.through("loading", "warm-up batch 1", "timing batch 1 (1/2)")
    walk.forecast.hear("timing batch 1 (2/2)", None)
    walk.now_s += 10
    assert walk.forecast.left() == Left(30.0, False)
    assert walk.forecast.done_share() is None


def test_the_next_cell_takes_what_the_first_one_took_in_proportion_to_its_work() -> None:
    twice = {
        stage: work * (2 if stage.startswith(("timing", "routing", "warm")) else 1) for stage, work in PLAN.items()
    }
    walk = Walk(PLAN, twice)
    walk.through(*PLAN)
    walk.forecast.begin_cell()
    walk.forecast.hear("loading", None)
    left = walk.forecast.left()
    assert left == Left(7.0 + 2 * (2.0 + 80.0 + 5.0), True)
    share = walk.forecast.done_share()
    assert share == pytest.approx(94.5 / (94.5 + left.seconds))


def test_another_load_is_forecast_by_its_kind_until_it_was_measured_itself() -> None:
    walk = Walk({"timing batch 1 (1/2)": 10.0, "timing batch 4 (1/2)": 5.0, "timing batch 4 (2/2)": 5.0})
    walk.through("timing batch 1 (1/2)")
    walk.forecast.hear("timing batch 4 (1/2)", None)
    assert walk.forecast.left() == Left(40.0, True)
    walk.now_s += 1.0
    walk.forecast.hear("timing batch 4 (2/2)", None)
    assert walk.forecast.left() == Left(1.0, True)


def test_a_stage_that_takes_longer_than_it_should_promises_nothing() -> None:
    walk = Walk({"timing batch 1 (1/2)": 10.0, "timing batch 1 (2/2)": 10.0})
    walk.through("timing batch 1 (1/2)")
    walk.forecast.hear("timing batch 1 (2/2)", None)
    walk.now_s += 41
    assert walk.forecast.left() == Left(0.0, False)


def test_the_first_timed_stage_is_forecast_by_its_own_share_and_all_of_its_kind_with_it() -> None:
    walk = Walk({"timing batch 1 (1/1)": 10.0, "timing batch 4 (1/1)": 20.0})
    walk.forecast.hear("timing batch 1 (1/1)", 0.0)
    walk.now_s += 2.0
    assert walk.forecast.left() is None
    walk.forecast.hear("timing batch 1 (1/1)", 2.5 / 30)
    assert walk.forecast.left() == Left(pytest.approx(6.0 + 16.0), True)
    assert walk.forecast.done_share() == pytest.approx(2.0 / 24.0)


def test_a_stage_that_says_how_far_it_is_is_believed() -> None:
    walk = Walk(PLAN)
    walk.through(*list(PLAN)[:4])
    assert walk.forecast.hear("routing batch 1", 24 / 40)
    walk.now_s += 4
    assert not walk.forecast.hear("routing batch 1", (24 + 15 * 0.8) / 40)
    assert walk.forecast.left() == Left(pytest.approx(1.0), True)


def test_a_cell_that_fails_teaches_nothing_by_the_stage_it_failed_in() -> None:
    walk = Walk(PLAN, PLAN)
    walk.through("loading", "warm-up batch 1", "timing batch 1 (1/2)")
    walk.forecast.begin_cell()
    walk.through("loading")
    assert walk.forecast.left() is None
