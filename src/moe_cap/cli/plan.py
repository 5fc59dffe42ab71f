"""`moe-cap plan`: which hardware can serve a model in time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from moe_cap.cli.model import KvDtype, PrecisionName, read_model
from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.errors import InvalidInputError
from moe_cap.hardware import Device, all_cpus, all_devices, find_device
from moe_cap.planner import Assumptions, Option, deployment_chart, feasible, requirement, tpot_for_throughput

DEFAULTS = Assumptions()

Model = Annotated[Path, typer.Option("--model", help="A config.json, or the folder that holds one.")]
Tpot = Annotated[float | None, typer.Option(help="Seconds per output token of a sequence.")]
Throughput = Annotated[float | None, typer.Option(help="Output tokens per second over the whole batch, instead.")]
Batch = Annotated[int, typer.Option(min=1, max=1_000_000, help="Sequences that are decoded together.")]
Context = Annotated[int, typer.Option(min=1, help="Tokens of context of each.")]
Source = Annotated[int | None, typer.Option(min=1, help="Tokens of the source of each, for an encoder-decoder model.")]
Zipf = Annotated[float, typer.Option(min=0.0, help="Experts' popularity falls as rank^-ZIPF; 0 is uniform.")]
Hardware = Annotated[list[str] | None, typer.Option(help="Only this device; repeat for several.")]
ReachableBandwidth = Annotated[float, typer.Option(help="Share of the peak bandwidth that kernels reach.")]
Chart = Annotated[bool, typer.Option("--chart", help="The deployment chart as data: power against bandwidth.")]


def run(
    model: Model,
    tpot: Tpot = None,
    throughput: Throughput = None,
    batch: Batch = 1,
    context: Context = 512,
    source: Source = None,
    precision: PrecisionName = None,
    kv_dtype: KvDtype = None,
    zipf: Zipf = 0.0,
    hardware: Hardware = None,
    reachable_bandwidth: ReachableBandwidth = DEFAULTS.reachable_bandwidth,
    chart: Chart = False,
    as_json: AsJson = False,
) -> None:
    """Say what a target needs, and for every device the fewest that can do it, at what price and power."""
    arch, storage = read_model(model, precision, kv_dtype)
    tpot_s = target(tpot, throughput, batch)
    devices = [find_device(name) for name in hardware] if hardware else list(all_devices())
    if chart:
        drawn = deployment_chart(
            {model_name(model): (arch, storage)}, devices, cpus=all_cpus(), batches=(batch,), tpot_s=tpot_s,
            context_tokens=context, source_tokens=source,
        )  # fmt: skip
        print_json(asdict(drawn))
        return
    assumed = Assumptions(reachable_bandwidth=reachable_bandwidth)
    shape: dict[str, Any] = {
        "batch": batch, "context_tokens": context, "tpot_s": tpot_s, "zipf_exponent": zipf, "source_tokens": source,
    }  # fmt: skip
    needed = requirement(arch, storage, **shape)
    options = feasible(devices, arch, storage, **shape, assumptions=assumed)
    if as_json:
        found = [asdict(option) for option in options]
        print_json({"requirement": asdict(needed), "options": found, "assumptions": asdict(assumed)})
        return
    facts = asdict(needed)
    facts |= {f"memory {name}": value for name, value in facts.pop("memory").items()}
    print_facts(f"{model_name(model)}, {storage.name}", facts)
    _print_options(options, devices)


def target(tpot_s: float | None, tokens_per_s: float | None, batch: int) -> float:
    """Seconds per token that the two ways to name a target ask for.

    Raises:
        InvalidInputError: neither or both were given.
    """
    if (tpot_s is None) == (tokens_per_s is None):
        raise InvalidInputError("give the target as --tpot (seconds per token) or as --throughput (tokens per second)")
    return tpot_s if tpot_s is not None else tpot_for_throughput(float(tokens_per_s or 0.0), batch)


def model_name(path: Path) -> str:
    """The file's own name, or that of the folder whose config.json it is."""
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _print_options(options: tuple[Option, ...], devices: list[Device]) -> None:
    rows = []
    for option in options:
        for how, fit in (("resident", option.resident), ("offloaded", option.offloaded)):
            if fit is not None and not (how == "offloaded" and option.resident and fit.count >= option.resident.count):
                rows.append(
                    (option.device_id, how, fit.count, fit.step_s * 1e3, fit.tokens_per_s, fit.limit.value,
                     fit.memory_bytes_per_device / 1e9, fit.power_w, fit.purchase_usd)
                )  # fmt: skip
    columns = ("device", "experts", "count", "step ms", "tokens/s", "limit", "GB each", "W", "USD")
    print_table(f"{len(options)} of {len(devices)} devices looked at", columns, rows)
    cannot = [(option.device_id, option.reason) for option in options if option.reason]
    if cannot:
        print_table("cannot", ("device", "why"), cannot)
