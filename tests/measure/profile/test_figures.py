"""The printed table says how sure a figure is and which cannot be told from the best."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from moe_cap.cli.profile_table import as_documents, print_rows
from moe_cap.measure.profile.figures import Figure, mark_ties
from moe_cap.quantity import Better
from tests.measure.profile.conftest import Profile

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own


def tied(better: Better, *column: Figure | None) -> list[bool]:
    return [figure is not None and figure.ties for figure in mark_ties(column, better)]


def test_an_interval_that_meets_that_of_the_best_is_a_tie() -> None:
    column = Figure(10, 1), Figure(8.5, 1), Figure(7, 1), None
    assert tied("higher", *column) == [False, True, False, False]
    assert tied("lower", *column) == [False, True, False, False]
    assert tied("neither", *column) == [False] * 4


def test_without_an_interval_the_best_is_a_point_and_others_are_no_tie() -> None:
    assert tied("higher", Figure(10, None), Figure(9.5, 1), Figure(9.9, None)) == [False, True, False]


def test_an_invalid_figure_is_neither_the_best_nor_a_tie() -> None:
    assert tied("higher", Figure(99, 1, valid=False), Figure(10, 1), Figure(9, 1)) == [False, False, True]
    assert tied("higher", Figure(10, 1), Figure(9.9, 1, valid=False)) == [False, False]
    assert tied("higher", Figure(1, 1, valid=False)) == [False]


def test_signs_are_explained_where_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("bf16", Figure(1234.5, 12.34)), ("int8", Figure(1230.0, 9.0, ties=True)), ("int4", None)]
    print_rows(["precision", "tok/s"], rows)
    printed = capsys.readouterr().out
    for text in ("1,234.50 ± 12 \n", "1,230 ± 9 = \n", "n/a \n", "95 % interval", "= overlaps the best"):
        assert text in printed
    lines = [line for line in printed.splitlines() if line.startswith((" bf16", " int"))]
    assert len({len(line.rstrip()) for line in lines}) == 1, "set to the right"
    print_rows(["tok/s"], [(Figure(1.0, None),)])
    assert "interval" not in capsys.readouterr().out


def test_programs_get_numbers() -> None:
    rows = [("bf16", Figure(2.0, None)), ("int8", Figure(1.0, 0.5, ties=True))]
    assert as_documents(["precision", "tok/s"], rows) == {
        "rows": [["bf16", 2.0], ["int8", 1.0]],
        "intervals_95": [{}, {"tok/s": 0.5}],
        "ties": [[], ["tok/s"]],
    }


def test_repeats_bring_the_intervals_of_the_record(profile: Profile, copied_folder: Path) -> None:
    path = copied_folder.parent / "profile.yaml"
    body = {"model_id": str(copied_folder), "engine": "fake", "precision": "bf16", "num_requests": 2, "repeats": 3}
    path.write_text(yaml.safe_dump(body | {"target_input_tokens": 8, "target_output_tokens": 4, "concurrency": [1, 2]}))
    document = profile.json("--config", str(path))
    (result,) = profile.results()
    told = [intervals["TPOT p50 [ms]"] for intervals in document["intervals_95"]]
    assert told == pytest.approx([1e3 * point.quantities["tpot_s_p50"].interval_95 for point in result.points])
    assert " ± " in profile("--config", str(path))
