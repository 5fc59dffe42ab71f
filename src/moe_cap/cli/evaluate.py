"""`moe-cap evaluate`: measure one system here and now; what a worker runs for every request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from moe_cap.cli.output import AsJson, print_json
from moe_cap.cli.stores import settings_here
from moe_cap.errors import EngineStartError, InvalidInputError

Request = Annotated[Path, typer.Argument(metavar="REQUEST.json", help="A submission as JSON.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for result.json or failure.json, and the logs.")]
ProgressFile = Annotated[Path | None, typer.Option("--progress", help="File that says where the run stands.")]
RunUuid = Annotated[str | None, typer.Option(help="Identity of the run; a new one if not given.")]


def run(
    request: Request,
    output: Output = Path("out"),
    progress: ProgressFile = None,
    run_uuid: RunUuid = None,
    as_json: AsJson = False,
) -> None:
    """Measure the system of a request: speed, routing, accuracy, energy and cost. Nothing is published."""
    if not request.is_file():
        raise InvalidInputError(f"there is no file {request}")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read while lm-eval is imported; its bars would fill the log
    try:
        from moe_cap.measure import job  # noqa: PLC0415 torch loads here, and only the worker's extra brings it
    except ModuleNotFoundError as error:
        message = (
            f"{error.name} is not installed: measuring needs the worker's packages (pip install 'moe-cap[worker]')"
        )
        raise EngineStartError(message) from error
    code = job.run(request, output, settings_here(), progress=progress, run_uuid=run_uuid)
    if code != 0:
        raise typer.Exit(code)
    result = output / "result.json"
    if as_json:
        print_json({"result": str(result)})
    else:
        typer.echo(f"measured: {result}")
