"""The table: canonical values untouched, display as the last step, null with its reason."""

import io
import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap import board
from moe_cap.board.columns import BY_FIELD, COLUMNS, show_number
from moe_cap.board.payload import show_load
from moe_cap.errors import InvalidInputError
from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.reported import read_reported
from moe_cap.result import Point, Result
from tests.web.records import make_point, make_result, quantity


@pytest.fixture(scope="module")
def results() -> list[Result]:
    return read_reported()


@pytest.fixture(scope="module")
def table(results: list[Result]) -> pd.DataFrame:
    return board.frame(results)


def with_point(result: Result, **changes: object) -> Result:
    point = result.points[0].model_copy(update=changes)
    return result.model_copy(update={"points": (point,)})


def test_there_is_one_row_for_each_result_and_point(results: list[Result], table: pd.DataFrame) -> None:
    assert len(table) == sum(len(result.points) for result in results) == 33
    assert table["row"].is_unique
    assert table["row"][0] == board.row_id(results[0].id, 0)


def test_the_frame_keeps_values_in_si_and_unrounded(table: pd.DataFrame) -> None:
    first = table.iloc[0]
    assert (first["purchase_usd"], first["accuracy"], first["output_tokens_per_s"]) == (92100.0, 0.826, 104.0)


def test_each_point_has_the_accuracy_of_its_own_task(table: pd.DataFrame) -> None:
    arena = table[(table["task"] == "arena_hard") & (table["model"] == "DBRX") & (table["precision"] == "int4")]
    assert arena["accuracy"].tolist() == [0.0717]


def test_an_unknown_number_is_null_with_its_reason_and_never_zero(results: list[Result]) -> None:
    reason = "this machine tells no power"
    unknown = Quantity(value=None, unit="W", source="measured", reason=reason)
    changed = with_point(results[0], quantities={**results[0].points[0].quantities, "power_w": unknown})
    table = board.frame([changed])
    assert pd.isna(table["power_w"][0])
    assert table["missing"][0]["power_w"] == reason
    assert "power_w" not in table["sources"][0]


def test_an_invalid_point_is_marked_with_every_broken_rule(results: list[Result]) -> None:
    table = board.frame([with_point(results[0], invalid=("lag above its budget", "S-MBU above 1"))])
    assert not table["valid"][0]
    assert table["invalid"][0] == "lag above its budget; S-MBU above 1"


def test_an_invalid_point_has_no_class_and_its_rules_are_the_reason(results: list[Result]) -> None:
    assert board.frame(results)["cap_class"][0] == "PA"
    table = board.frame([with_point(results[0], invalid=("lag above its budget", "S-MBU above 1"))])
    assert pd.isna(table["cap_class"][0])
    reason = "invalid: lag above its budget; S-MBU above 1"
    assert (table["cap_class_reason"][0], table["missing"][0]["cap_class"]) == (reason, reason)


def test_the_grid_tells_validity_in_words(results: list[Result]) -> None:
    shown = board.payload(board.frame([results[0], with_point(results[1], invalid=("S-MBU above 1",))]))
    assert shown["values"]["validity"] == ["valid", "invalid: S-MBU above 1"]
    (column,) = [column for column in shown["columns"] if column["field"] == "validity"]
    assert not column["visible"]


@pytest.mark.parametrize("spelled", ["vllm", "vLLM", "VLLM"])
def test_an_engine_has_one_name_in_every_form_of_the_table(results: list[Result], spelled: str) -> None:
    made = make_result()
    table = board.frame(
        [made.model_copy(update={"engine": made.engine.model_copy(update={"name": spelled})}), results[0]]
    )
    assert results[0].engine.name == "vLLM"
    assert set(table["engine"]) == {"vLLM"}
    shown = board.payload(table)
    assert set(shown["values"]["engine"]) == {"vLLM"}
    assert shown["aliases"] == {"engine": {"vllm": "vLLM"}}
    for file_format, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet), ("json", pd.read_json)):
        assert set(read(io.BytesIO(board.export(table, file_format)))["engine"]) == {"vLLM"}


def test_an_engine_that_nobody_here_knows_keeps_the_name_of_its_source(table: pd.DataFrame) -> None:
    assert "MoE-Infinity" in set(table["engine"].dropna())


def test_an_empty_store_is_an_empty_table_with_all_columns() -> None:
    table = board.frame([])
    assert len(table) == 0
    assert set(QUANTITIES) <= set(table.columns)
    assert board.payload(table)["count"] == 0


def test_every_quantity_has_a_column_on_screen() -> None:
    assert set(QUANTITIES) <= set(BY_FIELD)
    assert len(BY_FIELD) == len(COLUMNS)


def test_the_payload_shows_percent_milliseconds_and_thousands(table: pd.DataFrame) -> None:
    shown = board.payload(table)
    assert shown["values"]["accuracy"][0] == pytest.approx(82.6)
    assert shown["values"]["purchase_usd"][0] == pytest.approx(92.1)
    assert {column["field"]: column["unit"] for column in shown["columns"]}["tpot_s_p50"] == "ms"


def test_the_payload_is_plain_json_without_nan(table: pd.DataFrame) -> None:
    text = json.dumps(board.payload(table), allow_nan=False)
    assert json.loads(text)["count"] == len(table)


def test_a_missing_engine_carries_its_reason_to_the_grid(table: pd.DataFrame) -> None:
    reasons = board.payload(table)["missing"]["engine"]
    assert set(reasons.values()) == {"Table 4 does not state the engine"}
    assert len(reasons) == 12


def test_columns_that_nobody_has_are_left_out_unless_shown_by_default(table: pd.DataFrame) -> None:
    fields = {column["field"] for column in board.payload(table)["columns"]}
    assert "energy_j" not in fields
    assert "decode_s_mbu" in fields


def test_intervals_are_columns_of_every_file_with_a_reason_where_there_is_none(results: list[Result]) -> None:
    point = make_point(4, 640.0)
    table = board.frame([make_result(points=(point,)), results[0]])
    row, reported = json.loads(board.export(table, "json"))
    assert row["output_tokens_per_s_ci95"] == 2.5
    assert row["tpot_s_p50_ci95"] is None
    assert row["missing"]["tpot_s_p50_ci95"] == "there is no second repeat of it"
    assert reported["missing"]["output_tokens_per_s_ci95"] == "the source states none"
    for file_format, read in (("csv", pd.read_csv), ("parquet", pd.read_parquet)):
        assert read(io.BytesIO(board.export(table, file_format)))["output_tokens_per_s_ci95"][0] == 2.5


def test_the_grid_gets_spreads_in_the_unit_of_their_column(results: list[Result]) -> None:
    quantities = {"tpot_s_p50": quantity("tpot_s_p50", 0.0123, interval_95=0.0004)}
    point = make_point(4, 640.0).model_copy(update={"quantities": quantities})
    shown = board.payload(board.frame([make_result(points=(point,)), results[0]]))
    spreads = {column["field"]: column["spread"] for column in shown["columns"]}
    assert shown["values"][spreads["tpot_s_p50"]["field"]] == [0.4, None]
    assert shown["values"][spreads["accuracy"]["field"]][0] == 1.0
    assert spreads["output_tokens_per_s"] is None


def test_warnings_of_a_record_reach_its_rows(results: list[Result]) -> None:
    table = board.frame([make_result(note="swapping"), results[0].model_copy(update={"warnings": ()})])
    assert board.payload(table)["values"]["warnings"] == ["swapping", "swapping", *[None] * len(results[0].points)]


def test_show_load_tells_only_what_is_known(table: pd.DataFrame) -> None:
    loads = [show_load(row) for row in table.to_dict("records")]
    assert loads[0] == "gsm8k · batch 32"
    assert loads[-1] == "arena_hard"


@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(0, 3))
def test_a_positive_number_is_never_shown_as_zero(value: float, decimals: int) -> None:
    assert float(show_number(value, decimals).replace(",", "")) > 0


def test_csv_and_parquet_hold_the_canonical_values(table: pd.DataFrame) -> None:
    from_csv = pd.read_csv(io.BytesIO(board.export(table, "csv")))
    from_parquet = pd.read_parquet(io.BytesIO(board.export(table, "parquet")))
    for read in (from_csv, from_parquet):
        assert read["output_tokens_per_s"].tolist() == table["output_tokens_per_s"].tolist()
        assert read["power_w"].isna().all()
        assert json.loads(read["missing"][30]) == table["missing"][30]


def test_json_export_has_null_where_nothing_is_known(table: pd.DataFrame) -> None:
    records = json.loads(board.export(table, "json"))
    assert records[30]["engine"] is None
    assert records[0]["missing"]["revision"]


def test_an_unknown_format_is_refused_by_name(table: pd.DataFrame) -> None:
    with pytest.raises(InvalidInputError, match="'xlsx' is not an export format"):
        board.export(table, "xlsx")


def test_random_weights_say_why_there_is_no_accuracy(results: list[Result]) -> None:
    model = results[0].model.model_copy(update={"random_weights": True})
    point: Point = results[0].points[0]
    changed = results[0].model_copy(update={"model": model})
    assert "random weights" in board.missing_reasons(changed, point)["accuracy"]


def test_display_values_keep_the_order_of_the_canonical_ones(table: pd.DataFrame) -> None:
    shown = board.payload(table)["values"]["output_tokens_per_s"]
    canonical = table["output_tokens_per_s"].tolist()
    assert sorted(range(33), key=shown.__getitem__) == sorted(range(33), key=canonical.__getitem__)
