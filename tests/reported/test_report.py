"""The document of results from elsewhere: what is taken over, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.board import frame
from moe_cap.errors import ResultError, UnknownHardwareError
from moe_cap.quantity import QUANTITIES
from moe_cap.reported.build import HEADLINE, build_result
from moe_cap.reported.document import RATIOS, parse_report
from moe_cap.result import Result, parse_result
from tests.reported.reports import CITATION, report


def built(body: dict[str, Any]) -> Result:
    return build_result(parse_report(yaml.safe_dump(body)), [])


def point(**quantities: object) -> list[dict[str, Any]]:
    return [{"load": {"kind": "offline"}, "quantities": quantities}]


def test_a_report_becomes_a_reported_result_that_is_a_row_of_the_board() -> None:
    result = parse_result(built(report()).to_json())
    assert (result.kind, result.engine.name, result.precision) == ("reported", "MoE-Gen", "bf16")
    assert result.citation is not None
    assert result.citation.model_dump() == CITATION
    assert result.hardware.device_name == "NVIDIA H100 SXM 80GB" or "H100" in result.hardware.device_name
    (row,) = frame([result]).to_dict("records")
    assert (row["output_tokens_per_s"], row["batch_size"], row["kind"]) == (31.0, 64, "reported")
    assert row["sources"] == {"output_tokens_per_s": "reported"}


def test_what_is_not_stated_is_null_with_the_reason_and_nothing_is_computed() -> None:
    quantities = built(report()).points[0].quantities
    assert set(quantities) == set(HEADLINE)
    missing = {name: quantity.reason for name, quantity in quantities.items() if quantity.value is None}
    assert missing["power_w"] == "the report has no power meter"
    assert missing["tpot_s_p50"] == "A. Person, Serving MoE does not state it"
    assert "no utilisation" in str(missing["decode_s_mbu"])
    assert {quantity.source for quantity in quantities.values()} == {"reported"}
    (row,) = frame([built(report())]).to_dict("records")
    assert row["missing"]["accuracy"] == "the source states none"


def test_the_documented_report_can_be_imported() -> None:
    text = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
    (example,) = re.findall(r"```yaml\n(moe_cap_report.*?)```", text, re.S)
    result = build_result(parse_report(example), [])
    assert [each.load.kind for each in result.points] == ["offline", "dataset"]
    assert result.points[0].quantities["power_w"].reason == "no meter"
    assert result.hardware.host_memory_bytes == 512e9


def test_the_same_report_is_the_same_result_and_another_figure_another_one() -> None:
    assert built(report()) == built(report())
    assert built(report()).id != built(report(points=point(output_tokens_per_s=32))).id


def test_a_score_belongs_to_the_point_that_names_it() -> None:
    scores = [{"task": "gsm8k", "metric": "exact_match", "value": 0.82, "num_samples": 1319}]
    points = [{"load": {"kind": "dataset", "dataset": "gsm8k"}, "accuracy_task": "gsm8k"}]
    (row,) = frame([built(report(points=points, accuracy=scores))]).to_dict("records")
    assert (row["accuracy"], row["task"], row["num_samples"]) == (0.82, "gsm8k", 1319)
    with pytest.raises(ResultError, match="accuracy_task gsm8k: `accuracy` has no such task"):
        built(report(points=points))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"citation": None}, "citation: Field required"),
        ({"citation": {**CITATION, "url": "a talk"}}, r"citation\.url: a citation's address begins with https"),
        ({"created_at": "2026-11-01T00:00:00"}, "created_at: .*timezone"),
        ({"moe_cap_report": 2}, "moe_cap_report: Input should be 1"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"points": point(ttft_ms_p50=3)}, "'ttft_ms_p50' is no quantity"),
        ({"points": point(decode_s_mbu=41.6)}, "decode_s_mbu is a ratio, 0 to 1, not 41.6"),
        ({"points": point(power_w=-1)}, "greater than or equal to 0"),
        ({"points": point(power_w="300")}, r"points\.0\.quantities\.power_w"),
        ({"points": point(power_w=True)}, r"points\.0\.quantities\.power_w"),
        ({"points": point(power_w=None)}, r"points\.0\.quantities\.power_w"),
        ({"points": [{"load": {"kind": "offline", "users": 3}}]}, r"load\.users: Extra inputs"),
        ({"points": [{"load": {}}]}, r"load\.kind: Field required"),
        ({"points": []}, "no points"),
        ({"model": {}}, r"model\.name: neither the document nor a file"),
        ({"hardware": {"device": "h100-sxm-80gb"}}, r"hardware\.num_devices: neither"),
        ({"hardware": {"device": "h100-sxm-80gb", "num_devices": 0}}, r"hardware\.num_devices: .*greater than"),
        ({"accuracy": [{"task": "gsm8k", "metric": "em", "value": 82.6}]}, r"accuracy\.0\.value: .*less than or equal"),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_place(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ResultError, match=told):
        built(report(**changes))


def test_a_device_that_the_catalogue_does_not_have_is_refused() -> None:
    with pytest.raises(UnknownHardwareError, match="h100"):
        built(report(hardware={"device": "h100", "num_devices": 1}))


@pytest.mark.parametrize("data", [b"- a list", b"a: [", b"citation: {}", b""])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ResultError, match=r"no report|no YAML"):
        parse_report(data)


def test_a_date_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(ResultError, match="day is out of range"):
        parse_report("moe_cap_report: 1\ncreated_at: 2026-11-31\n")


def test_what_is_common_to_all_points_may_not_contradict_one() -> None:
    shared = {"kind": "closed_loop", "input_tokens": 512}
    points = [{"load": {"concurrency": 1}}, {"load": {"concurrency": 4}}]
    assert [p.load.input_tokens for p in built(report(load=shared, points=points)).points] == [512, 512]
    with pytest.raises(ResultError, match=r"load\.input_tokens is 512 for all points, and 8 in one"):
        built(report(load=shared, points=[{"load": {"input_tokens": 8}}]))


def test_a_source_that_names_neither_engine_nor_precision_says_so() -> None:
    result = built(report(engine=None, precision=None))
    assert (result.engine.name, result.precision) == (None, "not stated")
    assert result.engine.name_reason == "A. Person, Serving MoE does not state the engine"


@given(name=st.sampled_from(sorted(QUANTITIES)), value=st.floats(0, 1e12))
def test_a_figure_is_taken_over_as_it_stands_or_refused(name: str, value: float) -> None:
    body = json.dumps(report(points=point(**{name: value})))
    if name in RATIOS and value > 1:
        with pytest.raises(ResultError):
            parse_report(body)
        return
    quantity = build_result(parse_report(body), []).points[0].quantities[name]
    assert (quantity.value, quantity.unit, quantity.source) == (value, QUANTITIES[name].unit, "reported")
