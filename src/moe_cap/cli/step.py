"""`moe-cap step`: what one step of an engine has to read and to compute."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from moe_cap.architecture import Architecture
from moe_cap.cli.model import ConfigPath, KvDtype, PrecisionName, read_model
from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.metrics.residency import check_stages
from moe_cap.precision import StoragePlan
from moe_cap.routing import (
    Step,
    StepKind,
    decode_step,
    encoder_step,
    with_all_experts,
    with_skewed_routing,
    with_uniform_routing,
)


class Routing(StrEnum):
    """Which experts the tokens of the step are assumed to use."""

    UNIFORM = "uniform"
    SKEWED = "skewed"
    ALL = "all"


Batch = Annotated[int, typer.Option(min=1, max=1_000_000, help="Sequences in the step.")]
Context = Annotated[int, typer.Option(min=1, help="Positions that the last new token of a sequence attends to.")]
Prefill = Annotated[int | None, typer.Option(min=1, help="A prefill step of this many new tokens per sequence.")]
RoutingOption = Annotated[Routing, typer.Option(help="Expected distinct experts (uniform, skewed), or all of them.")]
Zipf = Annotated[float, typer.Option(min=0.0, help="Experts' popularity falls as rank^-ZIPF, for --routing skewed.")]
Source = Annotated[int | None, typer.Option(min=1, help="Tokens of the source of each, for an encoder-decoder model.")]
Tp = Annotated[int, typer.Option(min=1, help="Tensor-parallel ranks.")]
Ep = Annotated[int, typer.Option(min=1, help="Expert-parallel ranks.")]
Dp = Annotated[int, typer.Option(min=1, help="Data-parallel ranks of the attention.")]
Pp = Annotated[int, typer.Option(min=1, help="Pipeline stages.")]


def run(
    config: ConfigPath,
    batch: Batch = 1,
    context: Context = 512,
    prefill: Prefill = None,
    source: Source = None,
    precision: PrecisionName = None,
    kv_dtype: KvDtype = None,
    routing: RoutingOption = Routing.UNIFORM,
    zipf: Zipf = 1.0,
    tp: Tp = 1,
    ep: Ep = 1,
    dp: Dp = 1,
    pp: Pp = 1,
    as_json: AsJson = False,
) -> None:
    """Count the bytes and FLOPs of one step, by part, and the distinct experts that it is expected to use.

    For an encoder-decoder model the pass that reads the sources is counted beside the step: it happens once.
    """
    arch, storage = read_model(config, precision, kv_dtype)
    bare = decode_step([context] * batch) if prefill is None else prefill_chunk(batch, context, prefill)
    sources = () if source is None else (source,) * batch
    parallel = Parallelism(tp=tp, ep=ep, dp=dp, pp=pp)
    check_stages(arch, parallel)
    document = account(arch, route(arch, replace(bare, source_tokens=sources), routing, zipf), storage, parallel)
    document["routing"] = routing.value
    if arch.encoder is not None:
        read = route(arch.encoder, encoder_step(sources), routing, zipf)
        document["encoder_pass"] = account(arch.encoder, read, storage, parallel)
    if as_json:
        print_json(document)
    else:
        _print(document)


def prefill_chunk(batch: int, context: int, new: int) -> Step:
    """The pass over the last `new` tokens of prompts; of a context that is shorter than that, over whole prompts."""
    return Step(StepKind.PREFILL, (new,) * batch, (max(context, new),) * batch, None, batch)


def route(arch: Architecture, step: Step, routing: Routing, zipf: float) -> Step:
    """Give a step its expected distinct experts per MoE layer."""
    match routing:
        case Routing.UNIFORM:
            return with_uniform_routing(step, arch)
        case Routing.SKEWED:
            return with_skewed_routing(step, arch, zipf)
        case Routing.ALL:
            return with_all_experts(step, arch)


def account(arch: Architecture, step: Step, storage: StoragePlan, parallel: Parallelism) -> dict[str, Any]:
    """Bytes and FLOPs over all ranks, by part."""
    return {
        "model_type": arch.model_type,
        "kind": step.kind.value,
        "batch": len(step.new_tokens),
        "new_tokens": sum(step.new_tokens),
        "context": max(step.context_tokens),
        "precision": storage.name,
        "kv_dtype": storage.kv.name,
        "num_devices": parallel.num_devices,
        "num_experts": arch.num_experts,
        "top_k": arch.top_k,
        "distinct_experts": list(step.activated_experts or ()),
        "bytes": step_bytes(arch, step, storage, parallel).as_dict(),
        "flops": step_flops(arch, step).as_dict(),
    }


def _print(document: dict[str, Any]) -> None:
    experts = document["distinct_experts"]
    tables = {"distinct_experts", "bytes", "flops", "encoder_pass"}
    facts = {name: value for name, value in document.items() if name not in tables}
    facts["distinct experts per layer"] = sum(experts) / len(experts) if experts else None
    print_facts("", facts)
    names = dict.fromkeys((*document["bytes"], *document["flops"]))
    rows = [(name, document["bytes"].get(name, ""), document["flops"].get(name, "")) for name in names]
    print_table("", ("part", "bytes", "FLOPs"), rows)
    if encoder_pass := document.get("encoder_pass"):
        _print({"pass": "encoder, once for these sources"} | encoder_pass)
