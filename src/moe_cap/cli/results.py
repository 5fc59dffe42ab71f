"""`moe-cap results`: what is published."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from moe_cap.board import frame
from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.cli.stores import open_results, settings_here
from moe_cap.errors import ResultError
from moe_cap.result import Result, parse_result
from moe_cap.results import ResultStore

COLUMNS = (
    "result", "kind", "model", "engine", "precision", "device", "num_devices", "concurrency", "batch_size", "task",
    "accuracy", "output_tokens_per_s", "tpot_s_p50", "decode_s_mbu", "purchase_usd",
)  # fmt: skip
Id = Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this result, complete.")]


def run(result_id: Id = None, as_json: AsJson = False) -> None:
    """Show a row per published load, or everything about one result."""
    results = open_results(settings_here())
    if result_id is not None:
        _show_one(parse_result(results.read(result_id)), as_json)
        return
    table = frame(read_results(results))
    rows = table[list(COLUMNS)].astype(object).where(table[list(COLUMNS)].notna(), None)
    if as_json:
        print_json(rows.to_dict("records"))
    else:
        print_table("", COLUMNS, rows.itertuples(index=False))


def read_results(results: ResultStore) -> list[Result]:
    """Every readable result, newest first; one that cannot be read is told on standard error and left out."""
    parsed: list[Result] = []
    for result_id, data in results.read_all():
        try:
            parsed.append(parse_result(data))
        except ResultError as error:
            typer.echo(f"moe-cap: left out: {result_id}: {error}", err=True)
    return sorted(parsed, key=lambda result: (result.created_at, result.id), reverse=True)


def _show_one(result: Result, as_json: bool) -> None:
    document: dict[str, Any] = result.model_dump(mode="json")
    if as_json:
        print_json(document)
        return
    skipped = {"points", "accuracy", "submission", "environment", "assumptions"}
    print_facts(f"result {result.id}", {name: value for name, value in document.items() if name not in skipped})
    scores = [(score.task, score.metric, score.value, score.stderr, score.num_samples) for score in result.accuracy]
    if scores:
        print_table("accuracy", ("task", "metric", "score", "stderr", "problems"), scores)
    for number, point in enumerate(result.points):
        rows = [(n, q.value, q.unit, q.source, q.reason or q.note or "") for n, q in point.quantities.items()]
        load = ", ".join(f"{name} {value}" for name, value in point.load if value is not None)
        print_table(f"point {number}: {load}", ("quantity", "value", "unit", "source", "note"), rows)
