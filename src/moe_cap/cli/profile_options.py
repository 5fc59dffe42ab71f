"""What can be said to `moe-cap profile`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Routing(StrEnum):
    """How an endpoint's routing is had."""

    UNIFORM = "uniform"
    REPLAY = "replay"


Config = Annotated[Path | None, typer.Option(help="YAML of a MoE-CAP configuration.")]
ApiUrl = Annotated[
    str | None,
    typer.Option(help="A server that runs, e.g. http://host:8000/v1; its key is taken from MOE_CAP_API_KEY."),
]
Engine = Annotated[str | None, typer.Option(help="An engine to start here instead.")]
Model = Annotated[str | None, typer.Option(help="Hub id, or a folder that starts with ./ or /.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
ServedModel = Annotated[str | None, typer.Option(help="Name the server serves it under.")]
RoutingOption = Annotated[
    Routing,
    typer.Option(
        help="Of an endpoint: the uniform expectation, or a replay of the tokens "
        "on this machine (needs the weights here)."
    ),
]
Hardware = Annotated[
    str | None, typer.Option(help="Device id of the server's machine; needed when it is not this one.")
]
NumDevices = Annotated[int | None, typer.Option(min=1, help="Devices that the server runs on.")]
Remote = Annotated[
    bool, typer.Option("--remote", help="The server is on another machine though its address is local (a tunnel).")
]
EngineArgs = Annotated[
    list[str] | None, typer.Argument(metavar="[-- ENGINE ARGUMENTS]", help="Passed on verbatim, and recorded.")
]

Concurrency = Annotated[list[str] | None, typer.Option(help="Requests in flight, e.g. 1,4,16.")]
Arrivals = Annotated[str | None, typer.Option(help="Open loop: constant, poisson, gamma or trace.")]
Rate = Annotated[list[str] | None, typer.Option(help="Requests per second of an open loop.")]
Burstiness = Annotated[float | None, typer.Option(help="Shape of gamma arrivals; 1 is Poisson.")]
Trace = Annotated[Path | None, typer.Option(help="File of arrival times, seconds, one a line.")]
NumRequests = Annotated[int | None, typer.Option(min=1, help="Requests per load.")]
Repeats = Annotated[int | None, typer.Option(min=1, help="Timed repetitions.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of prompts and arrivals.")]
Dataset = Annotated[list[str] | None, typer.Option(help="Data that the prompts are made of.")]
Task = Annotated[list[str] | None, typer.Option(help="Score this task too; prompts are made of it.")]
AccuracyLimit = Annotated[int | None, typer.Option(min=1, help="Problems per task.")]
Silence = Annotated[
    float, typer.Option("--silence-s", min=0.01, help="A server that says nothing for so long has failed.")
]
RequestLimit = Annotated[
    float, typer.Option("--request-s", min=0.01, help="An answer that takes longer than this has failed.")
]

Preset = Annotated[list[str] | None, typer.Option(help="Lengths: 4k-1k, 13k-1k, 1k-8k.")]
InputTokens = Annotated[list[str] | None, typer.Option(help="Prompt lengths, e.g. 1000,4000.")]
OutputTokens = Annotated[list[str] | None, typer.Option(help="Answer lengths.")]
Precision = Annotated[
    list[str] | None, typer.Option(help="Number formats of the weights; what the model's config says if not given.")
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A value for {NAME} in the engine arguments; repeat for a grid."),
]

OutputDir = Annotated[
    Path, typer.Option(help="Folder for results, table and plots; what is there already is not measured again.")
]
Publish = Annotated[
    bool, typer.Option("--publish", help="Send results to the store of MOE_CAP_RESULTS or RESULTS_REPO.")
]
