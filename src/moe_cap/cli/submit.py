"""`moe-cap submit`: ask for a system to be measured."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moe_cap.cli.objectives import Slo, read_objectives
from moe_cap.cli.output import AsJson, print_facts, print_json
from moe_cap.cli.stores import open_queue, settings_here
from moe_cap.errors import InvalidInputError
from moe_cap.preflight import Preflight, check
from moe_cap.submission import Submission, parse_submission

File = Annotated[Path | None, typer.Argument(metavar="[REQUEST.json]", help="A submission; options override it.")]
Model = Annotated[str | None, typer.Option(help="Hub id, or a folder that starts with ./ or /.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Engine = Annotated[str | None, typer.Option(help="Serving engine.")]
Precision = Annotated[str | None, typer.Option(help="Number format of the weights.")]
Task = Annotated[list[str] | None, typer.Option("--task", help="Accuracy task; repeat for several.")]
Concurrency = Annotated[list[int] | None, typer.Option(min=1, help="Requests in flight; repeat for several levels.")]
Lengths = Annotated[
    str | None, typer.Option(help="dataset: the first task's problems as long as they are; else fixed lengths.")
]
InputTokens = Annotated[int | None, typer.Option(help="Prompt length.")]
OutputTokens = Annotated[int | None, typer.Option(help="Answer length.")]
NumRequests = Annotated[int | None, typer.Option(help="Requests per level.")]
AccuracyLimit = Annotated[int | None, typer.Option(help="Problems per task.")]
Repeats = Annotated[int | None, typer.Option(help="Timed repetitions of each level.")]
Hardware = Annotated[str | None, typer.Option(help="Device id that the worker must have.")]
Seed = Annotated[int | None, typer.Option(help="Of the prompts.")]
Submitter = Annotated[str | None, typer.Option(help="Who asks.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, store nothing.")]


def run(
    file: File = None,
    model: Model = None,
    revision: Revision = None,
    engine: Engine = None,
    precision: Precision = None,
    task: Task = None,
    concurrency: Concurrency = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    lengths: Lengths = None,
    slo: Slo = None,
    num_requests: NumRequests = None,
    accuracy_limit: AccuracyLimit = None,
    repeats: Repeats = None,
    hardware: Hardware = None,
    seed: Seed = None,
    submitter: Submitter = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Check a submission and put it into the queue."""
    options = {
        "model": model, "revision": revision, "engine": engine, "precision": precision, "tasks": task,
        "concurrency": concurrency, "input_tokens": input_tokens, "output_tokens": output_tokens,
        "lengths": lengths, "objectives": read_objectives(slo),
        "num_requests": num_requests, "accuracy_limit": accuracy_limit, "repeats": repeats, "hardware": hardware,
        "seed": seed, "submitter": submitter,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    submission = parse_submission((read_request(file) if file else {}) | given)
    settings = settings_here()
    found = check(submission, settings)
    if not found.ok:
        raise InvalidInputError("; ".join(f"{problem.field}: {problem.message}" for problem in found.problems))
    if dry_run:
        show(submission, found, None, as_json)
        return
    queue = open_queue(settings)
    request = queue.submit(submission.model_dump(mode="json"), request_id=submission.id)
    show(submission, found, queue.position(request.id), as_json)


def read_request(path: Path) -> dict[str, Any]:
    """Read the JSON object of a submission.

    Raises:
        InvalidInputError: no such file, or not a JSON object.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidInputError(f"{path} holds a JSON {type(body).__name__}, expected the object of a submission")
    return body


def show(submission: Submission, found: Preflight, position: int | None, as_json: bool) -> None:
    """Print the request's id, its place in the line, and what the pre-flight found."""
    document = {"id": submission.id, "position": position, "preflight": asdict(found)}
    if as_json:
        print_json(document)
        return
    expected = {name: value for name, value in asdict(found).items() if name not in {"problems", "warnings"}}
    print_facts(f"request {submission.id}", {"position": position, **expected})
    for warning in found.warnings:
        typer.echo(warning)
