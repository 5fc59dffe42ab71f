"""`moe-cap trace`: what a routing trace that lies beside a result says, for any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from moe_cap.cli.output import AsJson, print_json, print_table
from moe_cap.errors import InvalidInputError
from moe_cap.expert_trace import Activated, ExpertTrace, activated_at, read_trace, recorded_batches
from moe_cap.routing import expert_histogram

File = Annotated[Path, typer.Argument(metavar="TRACE.npz", help="Written by evaluate, profile or a worker.")]
Batch = Annotated[
    list[int] | None, typer.Option(min=1, help="Sequences decoded together; repeat. Default: 1, 2, 4 ... as traced.")
]
ByLayer = Annotated[bool, typer.Option("--by-layer", help="A column per layer.")]
Seed = Annotated[int, typer.Option(min=0, help="Of batches that are drawn.")]
Html = Annotated[Path | None, typer.Option(help="Write the curve and the heat map as one page that needs no network.")]


def run(
    file: File,
    batch: Batch = None,
    by_layer: ByLayer = False,
    seed: Seed = 0,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Distinct experts per layer and decode step against the batch size (the paper's Figure 5)."""
    trace = read_trace(file)
    found = [activated_at(trace, size, seed) for size in sorted(set(batch or recorded_batches(trace)))]
    tokens = expert_histogram(trace.experts, trace.num_experts)
    if html is not None:
        _write_page(html, file, trace, found)
    if as_json:
        batches = [
            {"batch_size": one.batch_size, "mean": one.mean, "uniform": trace.uniform(one.batch_size),
             "drawn": one.drawn, "by_layer": one.by_layer}
            for one in found
        ]  # fmt: skip
        print_json({"num_experts": trace.num_experts, "batches": batches, "expert_tokens": tokens.tolist()})
        return
    layers = [f"layer {index}" for index in range(len(found[0].by_layer))] if by_layer else []
    rows = [
        (one.batch_size, one.mean, trace.uniform(one.batch_size), "drawn" if one.drawn else "as traced",
         *(one.by_layer if by_layer else ()))
        for one in found
    ]  # fmt: skip
    title = f"Distinct of {trace.num_experts} experts per layer and decode step"
    print_table(title, ("batch", "experts", "uniform", "batches", *layers), rows)
    busiest = tokens.max(axis=1) / np.maximum(tokens.mean(axis=1), 1)
    typer.echo(f"busiest expert of a layer: {busiest.mean():.2f} times the mean, {busiest.max():.2f} at most")


def _write_page(path: Path, file: Path, trace: ExpertTrace, found: list[Activated]) -> None:
    try:
        from moe_cap.measure.profile.experts_plot import draw_trace  # noqa: PLC0415 plotly is an extra
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"{error.name} is not installed: pip install 'moe-cap[worker]'") from error
    path.write_text(draw_trace(trace, found, f"Routing trace {file.name}"), encoding="utf-8")
