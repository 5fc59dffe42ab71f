"""The page of a profile: every number in its place, and what is missing said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from moe_cap.measure.profile.page import logarithmic, stroke
from moe_cap.measure.profile.plots import draw, write_plots
from moe_cap.measure.profile.run import Outcome
from moe_cap.result import Point, Result, parse_result
from moe_cap.routing import uniform_activated_experts
from moe_cap.settings import CHECKOUT
from tests.web.conftest import ARGUMENTS, CHROMIUM

OTHERS = "the server served somebody else"


@pytest.fixture(scope="module")
def shipped() -> Result:
    """A result of three loads, three repeats and recorded routing."""
    paths = sorted((CHECKOUT / "eval-results" / "runs").rglob("*.json"))
    results = (parse_result(path.read_bytes()) for path in paths)
    return next(result for result in results if result.kind == "measured" and len(result.points) == 3)


def outcome(result: Result, points: Sequence[Point] | None = None, **swept: str) -> Outcome:
    cell: Any = SimpleNamespace(submission=result.submission, swept=swept, fingerprint="f")
    told = result if points is None else result.model_copy(update={"points": tuple(points)})
    return Outcome(cell, Path(), "kept", told, None)


def without_mbu(point: Point) -> Point:
    lost = point.quantities["decode_s_mbu"].model_copy(update={"value": None, "reason": OTHERS, "interval_95": None})
    return point.model_copy(update={"quantities": {**point.quantities, "decode_s_mbu": lost}})


def sent_at(point: Point, rate: float) -> Point:
    load = {"kind": "open_loop", "concurrency": None, "request_rate_per_s": rate}
    return point.model_copy(update={"load": point.load.model_copy(update=load), "expert_tokens": None})


def test_values_stand_over_their_loads_with_their_intervals(shipped: Result) -> None:
    speed, share, *_ = draw([outcome(shipped)])
    for panel, name, scale in ((speed, "output_tokens_per_s", 1), (share, "decode_s_mbu", 100)):
        (line,) = panel.figure.data
        quantities = [point.quantities[name] for point in shipped.points]
        assert list(line.x) == [1, 4, 16]
        assert list(line.y) == pytest.approx([scale * quantity.value for quantity in quantities])
        assert list(line.error_y.array) == pytest.approx([scale * quantity.interval_95 for quantity in quantities])
        assert line.error_y.visible
        assert panel.note == ""
        assert list(panel.figure.layout.xaxis.ticktext) == ["1", "4", "16"]


def test_without_repeats_there_are_no_bars(shipped: Result) -> None:
    alone = [
        point.model_copy(
            update={
                "quantities": {
                    name: quantity.model_copy(update={"interval_95": None})
                    for name, quantity in point.quantities.items()
                }
            }
        )
        for point in shipped.points
    ]
    assert not any(line.error_y.visible for panel in draw([outcome(shipped, alone)])[:2] for line in panel.figure.data)


def test_an_open_loop_is_drawn_by_its_rate(shipped: Result) -> None:
    points = [sent_at(point, rate) for point, rate in zip(shipped.points, (55.25, 13.1, 24.0), strict=True)]
    panels = draw([outcome(shipped, points)])
    assert len(panels) == 2
    for panel in panels:
        assert "by request rate" in panel.title
        assert list(panel.figure.data[0].x) == [13.1, 24.0, 55.25]
        assert list(panel.figure.layout.xaxis.ticktext) == ["13.1", "24", "55.2"]


def test_what_is_missing_is_said_with_its_reason(shipped: Result) -> None:
    first, second, third = shipped.points
    late = third.model_copy(update={"invalid": ("the client was late",)})
    speed, share, *_ = draw([outcome(shipped, [first, without_mbu(second), late])])
    assert speed.note == "No point at 16 in flight: invalid, the client was late."
    assert share.note == f"No point at 4 in flight: {OTHERS}. {speed.note}"
    assert list(share.figure.data[0].x) == [1]
    assert speed.figure.layout.xaxis == share.figure.layout.xaxis, "the panels share their axis"


def test_a_panel_without_any_value_keeps_the_axis_and_says_why(shipped: Result) -> None:
    speed, share, *_ = draw([outcome(shipped, [without_mbu(point) for point in shipped.points])])
    assert share.note == f"No point at any load: {OTHERS}."
    assert share.figure.layout.xaxis == speed.figure.layout.xaxis
    assert not share.figure.layout.yaxis.showticklabels


def test_in_a_sweep_the_cell_that_lacks_a_point_is_named(shipped: Result) -> None:
    whole = outcome(shipped, tp="1")
    _, share, *_ = draw([whole, outcome(shipped, [without_mbu(shipped.points[0])], tp="2")])
    assert share.note.startswith("No point at 1 in flight (")
    assert "tp 2)" in share.note


def test_one_load_stands_in_the_middle_of_its_axis() -> None:
    axis: Any = logarithmic([8])
    low, high = axis["range"]
    assert 10 ** ((low + high) / 2) == pytest.approx(8)
    assert 10 ** (high - low) < 10
    assert axis["ticktext"] == ["8"]


def test_labels_that_would_touch_are_left_out_and_the_ends_are_not() -> None:
    axis: Any = logarithmic([1, *range(32, 65)])
    assert axis["tickvals"][0] == 1
    assert axis["tickvals"][-1] == 64
    assert len(axis["tickvals"]) < 8


def test_cells_are_told_apart() -> None:
    assert len({stroke(index) for index in range(24)}) == 24


def test_experts_are_drawn_where_routing_was_recorded(shipped: Result) -> None:
    *_, distinct, heat = draw([outcome(shipped)])
    traced, expected = distinct.figure.data
    curve = max((point.activated_by_batch_size or {} for point in shipped.points), key=len)
    assert dict(zip(traced.x, traced.y, strict=True)) == curve
    assert dict(zip(expected.x, expected.y, strict=True))[16] == uniform_activated_experts(16, 4, 16)
    assert expected.line.dash == "dot"
    (cells,) = heat.figure.data
    assert cells.z.tolist() == [list(layer) for layer in shipped.points[-1].expert_tokens or ()]
    assert heat.note.startswith("At 16 in flight")


def test_the_page_is_drawn_by_a_browser_without_a_network(shipped: Result, tmp_path: Path) -> None:
    hostile = '"><script>document.title = "owned"</script>'
    page_of = write_plots([outcome(shipped, draft=hostile), outcome(shipped, shipped.points[:1])], tmp_path)
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(page_of.as_uri())
        page.wait_for_selector("#panel-3 .main-svg")
        widths = page.eval_on_selector_all("section", "all => all.map(one => one.clientWidth)")
        drawn = page.eval_on_selector_all("section .svg-container", "all => all.map(one => one.clientWidth)")
        title = page.title()
        browser.close()
    assert wrong == []
    assert title.startswith(shipped.model.name)
    assert drawn == widths
    assert len(widths) == 4
    assert max(widths) < 1100 / 2
