"""The radar: fixed places, raw values, nothing that moves when a system is added."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap import board
from moe_cap.metrics.cost import Basis
from moe_cap.reported import read_reported
from moe_cap.web.charts import draw_distinct_experts, draw_heat_map
from moe_cap.web.radar import MORE_AXES, RADIUS, axes_on, corner, draw, draw_rows, mark_of, shapes_of
from tests.web.records import make_point, make_result

AXES = axes_on(Basis.PAPER)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return board.frame([*read_reported(), make_result()])


@given(st.floats(0, 1), st.integers(3, 8), st.data())
def test_a_corner_lies_as_far_out_as_its_place(place: float, axes: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, axes - 1))
    assert math.hypot(*corner(place, axis, axes)) == pytest.approx(RADIUS * place, abs=0.02)


def test_a_system_is_drawn_the_same_alone_and_beside_others(table: pd.DataFrame) -> None:
    rows = list(table["row"])
    alone = draw(shapes_of(table, rows[:1], AXES), AXES).outlines[0]
    beside = draw(shapes_of(table, rows[:5], AXES), AXES).outlines[0]
    assert alone == beside


def test_the_papers_systems_have_the_papers_classes(table: pd.DataFrame) -> None:
    of_table_2 = table[table["citation_place"] == "Table 2"].set_index("engine")["cap_class"].to_dict()
    assert of_table_2 == {"vLLM": "PA", "TensorRT-LLM": "PC", "MoE-Infinity": "CA"}  # the paper writes CP for PC


def test_without_a_selection_one_system_of_each_class_is_shown(table: pd.DataFrame) -> None:
    page = draw_rows(table, (), AXES)
    assert page.count('class="cap-shape') == 3
    assert "Select up to five rows" in page


def test_a_row_that_does_not_exist_is_ignored(table: pd.DataFrame) -> None:
    assert draw_rows(table, ("nope-0",), AXES) == draw_rows(table, (), AXES)


def test_an_unknown_value_has_no_mark_and_is_told(table: pd.DataFrame) -> None:
    made = table[table["kind"] == "measured"]["row"].iloc[0]
    shape = shapes_of(table, [made], AXES)[0]
    assert [mark.shown for mark in shape.marks] == ["n/a", "93.00 %", "210.00 tok/s"]
    assert len(draw([shape], AXES).outlines[0].split()) == 2


def test_an_invalid_row_is_marked_wherever_the_radar_names_it() -> None:
    broken = make_result("broken-moe", points=(make_point(2, 640.0, invalid=("S-MBU is above 1",)),))
    table = board.frame([broken, make_result()])
    page = draw_rows(table, list(table["row"])[:2], AXES)
    assert "CAP radar of broken-moe, invalid, demo-moe" in page
    assert page.count('class="cap-shape cap-s1 cap-broken"') == 1
    assert page.count('class="cap-point cap-s1 cap-broken"') == 2
    assert "cap-s2 cap-broken" not in page
    assert page.count("broken-moe, invalid, Accuracy") == 1
    broken_legend = page.partition("cap-legend")[2].partition("</li>")[0]
    assert '<span class="cap-badge cap-bad">invalid</span>' in broken_legend
    assert "invalid: S-MBU is above 1" in broken_legend


def test_marks_upon_each_other_share_a_spot_that_tells_of_all(table: pd.DataFrame) -> None:
    rows = list(table[table["citation_place"] == "Table 2"]["row"])
    drawing = draw(shapes_of(table, rows, AXES), AXES)
    assert sum(len(spot.entries) for spot in drawing.spots) == 9
    assert max(len(spot.entries) for spot in drawing.spots) > 1


def test_a_value_beyond_the_scale_is_drawn_at_its_end_and_says_so() -> None:
    mark = mark_of("output_tokens_per_s", 1e9)
    assert mark.place == 1.0
    assert "Outside of the scale" in mark.note


def test_an_impossible_value_has_no_place_and_says_why() -> None:
    mark = mark_of("output_tokens_per_s", 0.0)
    assert mark.place is None
    assert "expected a finite number" in mark.note


def test_bases_of_cost_are_never_on_one_radar() -> None:
    for basis in Basis:
        costs = [name for name in axes_on(basis, MORE_AXES) if "usd" in name]
        assert len(costs) == 1


def test_the_heat_map_has_a_cell_for_each_expert_of_each_layer() -> None:
    heat = draw_heat_map([[1, 3], [0, 4]])
    assert [cell.strength for cell in heat.cells] == [0.25, 0.75, 0.0, 1.0]
    assert heat.busiest_over_even == 2.0


def test_a_heat_map_of_nothing_is_even() -> None:
    assert draw_heat_map([[0, 0]]).busiest_over_even == 0.0


def test_the_curve_of_distinct_experts_ends_at_the_top_when_all_are_used() -> None:
    curve = draw_distinct_experts({1: 2.0, 64: 8.0}, 8)
    assert curve.points[-1][1] == 0.0
    assert curve.points[0][0] == 0.0


def test_the_curve_of_one_batch_size_is_a_point() -> None:
    assert len(draw_distinct_experts({1: 2.0}, 8).points) == 1
