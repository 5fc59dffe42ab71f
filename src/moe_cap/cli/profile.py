"""`moe-cap profile`: measure a deployment of one's own; sweeps, tables and plots."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from backend.publishing import Publisher
from moe_cap.cli.objectives import Slo, read_objectives
from moe_cap.cli.output import AsJson, print_json
from moe_cap.cli.profile_options import (
    AccuracyLimit,
    ApiUrl,
    Arrivals,
    Burstiness,
    Concurrency,
    Config,
    Dataset,
    Engine,
    EngineArgs,
    Hardware,
    InputTokens,
    Model,
    NumDevices,
    NumRequests,
    OutputDir,
    OutputTokens,
    Precision,
    Preset,
    Publish,
    Rate,
    Remote,
    Repeats,
    RequestLimit,
    Revision,
    Routing,
    RoutingOption,
    Seed,
    ServedModel,
    Silence,
    Sweep,
    Task,
    Trace,
)
from moe_cap.cli.profile_table import as_documents, print_rows
from moe_cap.cli.progress_lines import ProgressLines, told_at_once
from moe_cap.cli.publication import Publication, why_invalid
from moe_cap.cli.stores import open_results, settings_here
from moe_cap.errors import EngineStartError, MoECapError, ProfileError
from moe_cap.settings import Settings

if TYPE_CHECKING:
    from moe_cap.measure.profile.config import ProfileConfig
    from moe_cap.measure.profile.run import Outcome, Profile
    from moe_cap.measure.profile.system import Place

LISTS = ("concurrency", "rates_per_s", "presets", "target_input_tokens", "target_output_tokens", "precision")


class Server(NamedTuple):
    """A server that runs, as the options name it; its longest silence and its longest answer in seconds."""

    api_url: str | None
    served_model: str | None
    routing: Routing
    remote: bool
    silence_s: float
    request_s: float


def run(
    config: Config = None,
    api_url: ApiUrl = None,
    engine: Engine = None,
    model: Model = None,
    revision: Revision = None,
    served_model: ServedModel = None,
    routing: RoutingOption = Routing.UNIFORM,
    hardware: Hardware = None,
    num_devices: NumDevices = None,
    remote: Remote = False,
    concurrency: Concurrency = None,
    arrivals: Arrivals = None,
    rate: Rate = None,
    slo: Slo = None,
    burstiness: Burstiness = None,
    trace: Trace = None,
    num_requests: NumRequests = None,
    repeats: Repeats = None,
    seed: Seed = None,
    dataset: Dataset = None,
    task: Task = None,
    accuracy_limit: AccuracyLimit = None,
    silence_s: Silence = 300.0,
    request_s: RequestLimit = 3600.0,
    preset: Preset = None,
    input_tokens: InputTokens = None,
    output_tokens: OutputTokens = None,
    precision: Precision = None,
    sweep: Sweep = None,
    output_dir: OutputDir = Path("out"),
    publish: Publish = False,
    engine_args: EngineArgs = None,
    as_json: AsJson = False,
) -> None:
    """Measure your own deployment: a server that runs (--api-url), or an engine that is started here (--engine).

    Lists make a grid; a cell that is in the output folder already is kept. docs/profile.md has examples.
    """
    options: dict[str, Any] = {
        "model_id": model, "revision": revision, "engine": engine, "hardware": hardware, "num_devices": num_devices,
        "concurrency": concurrency, "arrivals": arrivals, "rates_per_s": rate, "burstiness": burstiness, "trace": trace,
        "num_requests": num_requests, "repeats": repeats, "seed": seed, "dataset_names": task or dataset,
        "metrics": ["accuracy"] if task else None, "accuracy_limit": accuracy_limit, "presets": preset,
        "target_input_tokens": input_tokens, "target_output_tokens": output_tokens, "precision": precision,
        "objectives": read_objectives(slo), "sweep": _sweep(sweep or []), "engine_args": engine_args,
    }  # fmt: skip
    server = Server(api_url, served_model, routing, remote, silence_s, request_s)
    _measure(options, config, server, output_dir, publish=publish, as_json=as_json)


def _measure(
    options: Mapping[str, Any], config: Path | None, server: Server, output_dir: Path, *, publish: bool, as_json: bool
) -> None:
    """Measure every cell of the grid, write the table and the plots, and show them."""
    settings = settings_here()
    os.environ.setdefault("TQDM_DISABLE", "1")  # read while lm-eval is imported; its bars would hide the progress
    try:
        from moe_cap.measure.profile import config as configs  # noqa: PLC0415 measuring needs the worker's extra
        from moe_cap.measure.profile import plots, report  # noqa: PLC0415
        from moe_cap.measure.profile.run import prepare  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise EngineStartError(f"{error.name} is not installed: pip install 'moe-cap[worker]'") from error
    given = {name: _split(name, value) for name, value in options.items() if value is not None and value != []}
    asked = configs.parse_profile({**(configs.read_config(config) if config else {}), **given})
    place = _place(asked, server, settings)
    publication = Publication(Publisher(open_results(settings))) if publish else None
    typer.echo(f"looking at {asked.model_id}: its files are read", err=True)
    profile = prepare(asked, place, output_dir, settings, os.environ)
    if publication is not None:
        publication.check()
    outcomes = _run(profile, publication)
    measured = any(outcome.result for outcome in outcomes)
    files = [report.write_table(outcomes, output_dir), plots.write_plots(outcomes, output_dir)] if measured else []
    _show(outcomes, files, publication, as_json, report.headings(outcomes), report.printed_rows(outcomes))


def _sweep(given: Sequence[str]) -> dict[str, list[str]] | None:
    found: dict[str, list[str]] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ProfileError(f"--sweep {pair}: give NAME=VALUE", key="sweep")
        found.setdefault(name, []).append(value)
    return found or None


def _split(name: str, value: Any) -> Any:
    return [part for text in value for part in text.split(",")] if name in LISTS else value


def _place(asked: ProfileConfig, server: Server, settings: Settings) -> Place:
    from moe_cap.measure.load.client import Limits  # noqa: PLC0415 measuring needs the worker's extra
    from moe_cap.measure.profile.system import Endpoint, Launched  # noqa: PLC0415 torch loads there

    if asked.model_id is None:
        raise ProfileError("which model? give --model, or model_id in the file", key="model_id")
    if (server.api_url is None) == (asked.engine is None):
        raise ProfileError("give --api-url for a server that runs, or --engine to start one", key="engine")
    if server.api_url is None:
        return Launched(asked.engine or "")
    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    connect_s = min(server.silence_s, Limits().connect_s)
    limits = Limits(connect_s=connect_s, silence_s=server.silence_s, request_s=server.request_s)
    return Endpoint(
        server.api_url, server.served_model, server.routing is Routing.REPLAY, server.remote, headers, limits
    )


def _run(profile: Profile, publication: Publication | None) -> list[Outcome]:
    """Measure with progress on standard error; each result is published as soon as it is there.

    The published table is brought up to date however the run ends.
    """
    kept, whole = profile.kept(), 0

    def done(outcome: Outcome) -> None:
        nonlocal whole
        _tell(outcome)
        if outcome.state == "measured":
            whole += 1
        if publication is not None and outcome.result is not None:
            publication.offer(outcome.cell.name, outcome.result)

    try:
        with ProgressLines(profile.cells, kept) as lines, told_at_once():
            outcomes = profile.run(kept, lines.watch, done)
        if publication is not None:
            publication.retry()
        return outcomes
    except KeyboardInterrupt:
        there, cells = len(kept) + whole, len(profile.cells)
        typer.echo(f"interrupted; {there} of {cells} cells are kept, the same command goes on", err=True)
        raise
    finally:
        if publication is not None:
            publication.refresh_table()


def _tell(outcome: Outcome) -> None:
    name = outcome.cell.name
    if outcome.error is not None:
        typer.echo(f"{name}: failed: {_named(outcome.error)}", err=True)
    elif outcome.state == "kept":
        typer.echo(f"{name}: measured before, kept", err=True)
    if outcome.result is not None and (reasons := why_invalid(outcome.result)):
        typer.echo(f"{name}: invalid: {reasons}; remove {outcome.folder} to measure it again", err=True)


def _named(error: MoECapError) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _show(
    outcomes: Sequence[Outcome],
    files: Sequence[Path],
    publication: Publication | None,
    as_json: bool,
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    """The table, or one document; the exit code says whether every cell was measured, and published if that was asked.

    Raises:
        MoECapError: the only cell failed.
    """
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(outcomes) == 1 and failed:
        raise failed[0]
    if as_json:
        print_json(
            {
                "cells": [_document(outcome) for outcome in outcomes],
                "columns": headings,
                **as_documents(headings, rows),
                "files": [str(path) for path in files],
                "published": publication.published if publication else [],
                "unpublished": [asdict(each) for each in publication.unpublished] if publication else [],
            }
        )
    elif rows:
        print_rows(headings, rows)
        for path in files:
            typer.echo(str(path))
    if failed:
        typer.echo(f"moe-cap: {len(failed)} of {len(outcomes)} cells failed", err=True)
    incomplete = publication is not None and not _tell_publication(publication)
    if failed or incomplete:
        raise typer.Exit(1)


def _tell_publication(publication: Publication) -> bool:
    """Say what is not in the store; whether all is."""
    left = publication.unpublished
    for each in left:
        typer.echo(f"{each.cell}: not published: {each.reason}", err=True)
    if left:
        again = "the same command publishes what it kept, except what is invalid"
        typer.echo(
            f"moe-cap: {len(left)} of {len(left) + len(publication.published)} results not published; {again}", err=True
        )
    if publication.trouble is not None:
        typer.echo(
            f"moe-cap: the published table is out of date, the same command renews it: {publication.trouble}", err=True
        )
    return not left and publication.trouble is None


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "cell": outcome.cell.name,
        "state": outcome.state,
        "swept": outcome.cell.swept,
        "arguments": outcome.cell.arguments,
        "result": str(outcome.folder / "result.json") if outcome.result else None,
        "result_id": outcome.result.id if outcome.result else None,
        "invalid": why_invalid(outcome.result) or None if outcome.result else None,
        "error": _named(outcome.error) if outcome.error else None,
    }
