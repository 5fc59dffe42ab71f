"""`moe-cap export`: the table of all results as a file."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from moe_cap.board import export, frame
from moe_cap.cli.output import AsJson, print_json
from moe_cap.cli.results import read_results
from moe_cap.cli.stores import open_results, settings_here
from moe_cap.errors import InvalidInputError


class FileFormat(StrEnum):
    """What `moe_cap.board.FORMATS` can write."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


Format = Annotated[FileFormat, typer.Option("--format", help="File format.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; standard output if not given.")]


def run(file_format: Format = FileFormat.CSV, output: Output = None, as_json: AsJson = False) -> None:
    """Write every published load as a row: canonical names, SI units, every digit."""
    if as_json and output is None:
        raise InvalidInputError("--json needs --output: standard output can hold one of them, the table or its summary")
    table = frame(read_results(open_results(settings_here())))
    data = export(table, file_format)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    output.write_bytes(data)
    if as_json:
        print_json({"output": str(output), "format": file_format.value, "rows": len(table), "bytes": len(data)})
    else:
        typer.echo(f"{len(table)} rows, {len(data):,} bytes: {output}")
