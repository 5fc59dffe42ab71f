"""`moe-cap import`: results that were measured elsewhere, with their source, as reported results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backend.publishing import Publisher
from moe_cap.cli.output import AsJson, print_json, print_table
from moe_cap.cli.stores import open_results, settings_here
from moe_cap.errors import InvalidInputError, ResultError
from moe_cap.reported.build import build_result
from moe_cap.reported.document import parse_report
from moe_cap.reported.reading import Reading
from moe_cap.reported.tools import TOOLS, read_tool_file
from moe_cap.result import Result

YAML = frozenset({".yaml", ".yml"})
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help=f"Reports (.yaml), or files of {', '.join(TOOLS)} with --about."),
]
About = Annotated[Path | None, typer.Option(metavar="REPORT.yaml", help="Names source and system of the tools' files.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be imported, store nothing.")]


def run(files: Files, about: About = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Check results from elsewhere and put them into the results store: one for each report, one for --about."""
    results = read_results(files, about)
    settings = settings_here()
    if not dry_run:
        publisher = Publisher(open_results(settings))
        for result in results:
            publisher.publish(result)
        publisher.refresh_table()
    store = None if dry_run else settings.results
    if as_json:
        print_json({"store": store, "results": [result.model_dump(mode="json") for result in results]})
        return
    rows = [(result.id, *_shown(result)) for result in results]
    title = "nothing stored (--dry-run)" if store is None else f"reported results in {store}"
    print_table(title, ("result", "model", "engine", "precision", "devices", "points", "warnings"), rows)


def _shown(result: Result) -> tuple[object, ...]:
    devices = f"{result.hardware.num_devices} x {result.hardware.device}"
    warnings = "; ".join(result.warnings) or None
    return result.model.name, result.engine.name, result.precision, devices, len(result.points), warnings


def read_results(files: list[Path], about: Path | None) -> list[Result]:
    """All results that these files hold; nothing is stored before every one of them has been understood.

    Raises:
        ResultError: one cannot be read, with its name.
        InvalidInputError: files of tools without `--about`, or the other way round.
    """
    reports = [path for path in files if path.suffix in YAML]
    tool_files = [path for path in files if path.suffix not in YAML]
    if (about is None) != (not tool_files):
        raise InvalidInputError(
            "files of tools need --about REPORT.yaml, which names their source and system, and --about needs such files"
        )
    results = [_read(path, []) for path in reports]
    if about is not None:
        results.append(_read(about, [reading for path in tool_files for reading in read_tool_file(path)]))
    return results


def _read(path: Path, readings: list[Reading]) -> Result:
    try:
        return build_result(parse_report(path.read_bytes()), readings)
    except InvalidInputError as error:
        raise ResultError(f"{path}: {error}") from error
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
