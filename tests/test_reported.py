"""The reported rows: every figure as the paper prints it, the files as the generator makes them."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from moe_cap.board import row_id
from moe_cap.errors import ResultError
from moe_cap.reported import read_reported
from moe_cap.result import Result, parse_result

ROOT = Path(__file__).parent.parent

# Tables 2, 3 and 4 of arXiv 2412.07067v1, typed a second time and in another shape than the data file:
# table, model, engine, precision, devices, kUSD, [task, accuracy %, tokens/s]...
PRINTED = """
2 Mixtral-8x22B vLLM bf16 4 92.1 gsm8k 82.6 104.0
2 Mixtral-8x22B TensorRT-LLM int4 4 92.1 gsm8k 72.6 593.4
2 Mixtral-8x22B MoE-Infinity bf16 2 50.6 gsm8k 82.6 3.25
3 Mixtral-8x7B TensorRT-LLM bf16 4 92.10 gsm8k 64.37 966.00 arena_hard 20.61 1117.49
3 Mixtral-8x7B TensorRT-LLM int8 4 92.10 gsm8k 63.08 1129.15 arena_hard 17.33 1544.68
3 Mixtral-8x7B TensorRT-LLM int4 4 92.10 gsm8k 46.85 1225.00 arena_hard 12.33 2184.96
3 Mixtral-8x22B TensorRT-LLM bf16 4 92.10 gsm8k 82.64 139.08 arena_hard 32.98 503.01
3 Mixtral-8x22B TensorRT-LLM int8 4 92.10 gsm8k 81.58 308.05 arena_hard 27.86 703.40
3 Mixtral-8x22B TensorRT-LLM int4 4 92.10 gsm8k 72.93 593.42 arena_hard 24.88 780.23
3 DBRX TensorRT-LLM bf16 4 92.10 gsm8k 71.87 135.18 arena_hard 14.69 583.64
3 DBRX TensorRT-LLM int8 4 92.10 gsm8k 70.74 274.05 arena_hard 11.39 646.85
3 DBRX TensorRT-LLM int4 4 92.10 gsm8k 46.10 335.95 arena_hard 7.17 752.54
4 Mixtral-8x7B - - 2 50.64 gsm8k 64.37 146.76 arena_hard 20.61 92.46
4 Mixtral-8x7B - - 4 92.10 gsm8k 64.37 222.62 arena_hard 20.61 128.84
4 Mixtral-8x7B - - 8 175.03 gsm8k 64.37 223.71 arena_hard 20.61 149.97
4 Qwen1.5-MoE-A2.7B - - 1 29.91 gsm8k 47.69 276.21 arena_hard 5.64 223.83
4 Qwen1.5-MoE-A2.7B - - 2 50.64 gsm8k 47.69 364.62 arena_hard 5.64 239.74
4 Qwen1.5-MoE-A2.7B - - 4 92.10 gsm8k 47.69 446.16 arena_hard 5.64 280.60
"""


def figures_of(result: Result) -> tuple[object, ...]:
    assert result.citation is not None
    stated = [result.model.name, result.engine.name, None if result.precision == "not stated" else result.precision]
    points = [
        (score.task, score.value, point.quantities["output_tokens_per_s"].value, point.quantities["purchase_usd"].value)
        for point, score in zip(result.points, result.accuracy, strict=True)
    ]
    return (result.citation.place, *stated, result.hardware.num_devices, *points)


def printed_figures() -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for line in PRINTED.split("\n")[1:-1]:
        table, model, engine, precision, devices, kusd, *rest = line.split()
        cost = round(float(kusd) * 1000)
        triples = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
        points = [
            (task, pytest.approx(float(acc) / 100, abs=1e-12), float(speed), cost) for task, acc, speed in triples
        ]
        named = [None if word == "-" else word for word in (engine, precision)]
        rows.append((f"Table {table}", model, *named, int(devices), *points))
    return rows


def test_every_figure_is_the_printed_one() -> None:
    assert [figures_of(result) for result in read_reported()] == printed_figures()


def test_batch_sizes_of_table_2_are_kept() -> None:
    batches = [result.points[0].load.batch_size for result in read_reported()]
    assert batches == [32, 40, 32] + [None] * 15


def test_classes_of_table_2_are_told_as_the_sources() -> None:
    told = [note.rstrip(".")[-2:] for result in read_reported() for note in result.warnings if "classes this" in note]
    assert told == ["PA", "CP", "CA"]


def test_every_reported_result_is_cited_and_holds_no_number_of_ours() -> None:
    for result in read_reported():
        assert result.citation is not None
        assert result.citation.text == "Fu, Jiang, Huang et al., MoE-CAP, arXiv 2412.07067v1"
        sources = {quantity.source for point in result.points for quantity in point.quantities.values()}
        assert sources == {"reported"}


def test_what_the_paper_does_not_state_is_null_with_the_reason() -> None:
    last = read_reported()[-1]
    assert last.engine.name is None
    assert last.engine.name_reason == "Table 4 does not state the engine"
    assert last.warnings[-1] == "Table 4 does not state the precision."


def test_ids_do_not_depend_on_when_they_are_made() -> None:
    assert [r.id for r in read_reported()] == [r.id for r in read_reported()]
    assert len({r.id for r in read_reported()}) == 18


def test_committed_records_are_what_the_generator_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moe_cap.reported", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert "18 reported results" in ran.stdout
    made = {path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "runs").rglob("*.json")}
    assert len(made) == 18
    assert made == {path: (ROOT / "eval-results" / path).read_bytes() for path in made}


def test_the_committed_table_holds_a_row_for_every_committed_point() -> None:
    folder = ROOT / "eval-results"
    results = [parse_result(path.read_bytes()) for path in (folder / "runs").rglob("*.json")]
    rows = {row_id(result.id, index) for result in results for index in range(len(result.points))}
    assert set(pd.read_parquet(folder / "snapshots" / "leaderboard.parquet")["row"]) == rows


def test_a_reported_result_without_citation_is_refused() -> None:
    record = read_reported()[0].model_dump(mode="json") | {"citation": None}
    with pytest.raises(ResultError, match="needs its citation"):
        parse_result(json.dumps(record))


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "data:text/html,x", "//example.org/x", "https:", "arxiv.org/abs/1"]
)
def test_a_citation_that_leads_to_no_web_page_is_refused(url: str) -> None:
    record = read_reported()[0].model_dump(mode="json")
    record["citation"]["url"] = url
    with pytest.raises(ResultError, match=r"citation\.url: a citation's address begins with https"):
        parse_result(json.dumps(record))
