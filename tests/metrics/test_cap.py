"""Fixed scales and the written rule of the class, against the paper's own classes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import InvalidInputError
from moe_cap.metrics.cap import (
    REFERENCE_ACCURACY,
    SCALES,
    CapClass,
    Scale,
    cap_axes,
    classify,
    radar_axes,
)
from moe_cap.metrics.cost import (
    Basis,
    EnergySource,
    PowerCost,
    Price,
    TokenRate,
    inferencex_usd_per_million_tokens,
    paper_cost,
    paper_server,
)
from moe_cap.metrics.purchase import YEAR_S
from moe_cap.quantity import QUANTITIES

positive = st.floats(1e-6, 1e9)
LOGARITHMIC = [scale for scale in SCALES.values() if scale.reference is not None]


def test_every_scale_belongs_to_a_published_quantity() -> None:
    assert set(SCALES) - {"accuracy"} <= set(QUANTITIES)
    for name, scale in SCALES.items():
        assert name == "accuracy" or scale.better == QUANTITIES[name].better


@pytest.mark.parametrize("scale", LOGARITHMIC, ids=lambda scale: scale.name)
def test_the_reference_stands_in_the_middle_and_a_decade_is_a_quarter(scale: Scale) -> None:
    better = 10 if scale.better == "higher" else 0.1
    assert scale.place(scale.reference) == 0.5
    assert scale.place(scale.reference * better) == pytest.approx(0.75)
    assert scale.place(scale.reference * better**2) == pytest.approx(1.0)
    assert scale.place(scale.reference / better**2) == pytest.approx(0.0)


@pytest.mark.parametrize("scale", LOGARITHMIC, ids=lambda scale: scale.name)
@given(positive, st.floats(1.001, 100))
def test_places_follow_the_better_direction(scale: Scale, raw: float, factor: float) -> None:
    outward = scale.place(raw * factor) - scale.place(raw)
    assert outward > 0 if scale.better == "higher" else outward < 0


def test_the_references_token_costs_are_what_the_file_says() -> None:
    power = PowerCost(4 * 300, EnergySource.ESTIMATED, Price(0.15, "x", "2026"))
    cost = paper_cost(paper_server(4), power, 5 * YEAR_S, TokenRate(104.0))
    for name in ("paper", "owner"):
        reference = SCALES[f"usd_per_million_output_tokens_{name}"].reference
        assert cost.usd_per_million_output_tokens == pytest.approx(reference, rel=2e-3)
    rental = inferencex_usd_per_million_tokens(2.21, 104.0 / 4)
    assert rental == pytest.approx(SCALES["usd_per_million_output_tokens_rental"].reference, rel=2e-3)
    assert SCALES["purchase_usd"].reference == paper_server(4).usd


@given(
    st.lists(
        st.fixed_dictionaries({"purchase_usd": positive, "accuracy": st.floats(0, 1), "output_tokens_per_s": positive}),
        min_size=2,
        max_size=6,
    )
)
def test_adding_a_system_never_moves_another(systems: list[dict[str, float]]) -> None:
    alone = radar_axes(systems[0], cap_axes(Basis.PAPER))
    together = [radar_axes(system, cap_axes(Basis.PAPER)) for system in systems]
    assert together[0] == alone
    assert radar_axes(systems[0], cap_axes(Basis.PAPER)) == alone


def test_places_beyond_the_scale_are_kept_and_marked() -> None:
    cost, accuracy, speed = radar_axes(
        {"purchase_usd": 50.0, "accuracy": 0.5, "output_tokens_per_s": 0.01}, cap_axes(Basis.PAPER)
    )
    assert cost.value > 1
    assert (cost.shown, cost.clipped) == (1.0, True)
    assert speed.value < 0
    assert (speed.shown, speed.clipped) == (0.0, True)
    assert (accuracy.value, accuracy.shown, accuracy.clipped) == (0.5, 0.5, False)
    assert (cost.raw, cost.unit) == (50.0, "USD")


def test_what_is_unknown_has_no_place() -> None:
    (axis,) = radar_axes({"purchase_usd": None}, ["purchase_usd"])
    assert (axis.value, axis.shown, axis.raw, axis.clipped) == (None, None, None, False)
    assert radar_axes({}, ["accuracy"])[0].value is None


@pytest.mark.parametrize("raw", [0.0, -1.0, math.inf, math.nan])
def test_impossible_values_are_refused(raw: float) -> None:
    with pytest.raises(InvalidInputError, match="purchase_usd"):
        radar_axes({"purchase_usd": raw}, ["purchase_usd"])
    with pytest.raises(InvalidInputError, match="no scale for beauty"):
        radar_axes({}, ["beauty"])


# Table 2 of MoE-CAP v1: GSM8K accuracy, USD, tokens per second, class.
@pytest.mark.parametrize(
    ("accuracy", "cost", "speed", "expected"),
    [(0.826, 92_100, 104.0, CapClass.PA), (0.726, 92_100, 593.4, CapClass.PC), (0.826, 50_640, 3.25, CapClass.CA)],
)
def test_the_papers_classes(accuracy: float, cost: float, speed: float, expected: CapClass) -> None:
    found = classify(cost=cost, accuracy=accuracy, output_tokens_per_s=speed, task="gsm8k")
    assert found.cap_class is expected
    assert "gives up" in found.reason


@given(st.floats(0, 1), positive, positive)
def test_the_class_names_the_two_axes_that_are_not_worst(accuracy: float, cost: float, speed: float) -> None:
    found = classify(cost=cost, accuracy=accuracy, output_tokens_per_s=speed, task="gsm8k")
    margins = {
        "C": SCALES["purchase_usd"].place(cost) - 0.5,
        "P": SCALES["output_tokens_per_s"].place(speed) - 0.5,
        "A": accuracy - REFERENCE_ACCURACY["gsm8k"],
    }
    given_up = next(letter for letter in "CPA" if letter not in found.cap_class.value)
    assert margins[given_up] <= min(margins.values()) + 0.005


def test_ties_are_broken_in_the_written_order() -> None:
    at_reference = {"cost": 92_100.0, "accuracy": 0.826, "output_tokens_per_s": 104.0}
    assert classify(**at_reference, task="gsm8k").cap_class is CapClass.PA
    assert classify(**(at_reference | {"cost": 9_210.0}), task="gsm8k").cap_class is CapClass.CA


def test_no_class_without_all_three_or_without_a_common_task() -> None:
    unknown = classify(cost=None, accuracy=0.8, output_tokens_per_s=None, task="gsm8k")
    assert unknown.cap_class is None
    assert unknown.reason == "no class: cost and performance unknown"
    other = classify(cost=1e4, accuracy=0.8, output_tokens_per_s=10.0, task="copying")
    assert other.cap_class is None
    assert "not scored on copying" in other.reason


def test_the_cost_axis_belongs_to_its_basis() -> None:
    assert {cap_axes(basis)[0] for basis in Basis} == {
        "purchase_usd", "usd_per_million_output_tokens_owner", "usd_per_million_output_tokens_rental",
    }  # fmt: skip
    rental = classify(cost=236.0, accuracy=0.826, output_tokens_per_s=104.0, task="gsm8k", basis=Basis.RENTAL)
    assert rental.cap_class is CapClass.PA
