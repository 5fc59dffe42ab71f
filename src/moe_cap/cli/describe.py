"""`moe-cap describe`: a model's exact structure from its config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from moe_cap.architecture import Architecture
from moe_cap.architecture.config import read_config_file
from moe_cap.cli.model import ConfigPath, KvDtype, PrecisionName, model_folder, read_model
from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.errors import EngineStartError
from moe_cap.precision import StoragePlan, read_weight_bytes, stored_bytes

ByLayer = Annotated[bool, typer.Option("--by-layer", help="Add the parts of every decoder layer.")]
Introspect = Annotated[
    bool, typer.Option("--introspect", help="Count the model as transformers builds it (needs torch).")
]


def run(
    config: ConfigPath,
    precision: PrecisionName = None,
    kv_dtype: KvDtype = None,
    by_layer: ByLayer = False,
    introspect: Introspect = False,
    as_json: AsJson = False,
) -> None:
    """Count a model: parameters by part, bytes of the weights, bytes of KV cache per token."""
    if introspect:
        document = count_from_model(config)
    else:
        arch, storage = read_model(config, precision, kv_dtype)
        document = describe(arch, storage) | {"file_bytes": file_bytes(config)}
        if by_layer:
            document["layers"] = [parts.as_dict() for parts in arch.parameters_by_layer()]
    if as_json:
        print_json(document)
    else:
        _print(document)


MTP_UNREAD = "this model has MTP layers, but no written source says how its family builds them"


def describe(arch: Architecture, storage: StoragePlan) -> dict[str, Any]:
    """Everything that follows from the config alone; sizes in bytes, counts as integers."""
    return {
        "model_type": arch.model_type,
        "parameters": arch.parameters().as_dict(),
        "encoder_parameters": arch.encoder_parameters(),
        "mtp_parameters": None if arch.mtp_unread else arch.mtp_parameters().total,
        "mtp_note": MTP_UNREAD if arch.mtp_unread else None,
        "num_layers": arch.num_layers,
        "num_moe_layers": len(arch.moe_layers),
        "num_experts": arch.num_experts,
        "top_k": arch.top_k,
        "precision": storage.name,
        "weights_bytes": stored_bytes(arch, storage),
        "kv_dtype": storage.kv.name,
        "kv_bytes_per_token": arch.kv_bytes_per_token(storage.kv),
        "kv_bytes_per_source_token": arch.encoder.kv_bytes_per_token(storage.kv) if arch.encoder else 0,
        "state_bytes_per_sequence": arch.state_bytes(storage.state, storage.plain),
    }


def file_bytes(config: Path) -> int | None:
    """What the safetensors files beside a config.json hold, MTP layers and other towers included; None without any."""
    folder = model_folder(config)
    return read_weight_bytes(folder) if folder else None


def count_from_model(config: Path) -> dict[str, Any]:
    """Parameters of the model that transformers builds from a config; the cache needs a reader, so it is not known.

    Raises:
        InvalidInputError: transformers does not know the family or refuses the config.
        EngineStartError: torch or transformers is not installed.
    """
    values = read_config_file(config)
    try:
        from moe_cap.measure.introspect import count_parameters  # noqa: PLC0415 the one option that needs torch
    except ModuleNotFoundError as error:
        needed = "--introspect needs the worker's packages (pip install 'moe-cap[worker]')"
        raise EngineStartError(f"{error.name} is not installed: {needed}") from error
    return {
        "model_type": values.get("model_type"),
        "parameters": count_parameters(values).as_dict(),
        "kv_bytes_per_token": None,
    }


def _print(document: dict[str, Any]) -> None:
    shown_below = {"model_type", "parameters", "layers"}
    parameters = document["parameters"]
    total = parameters["total"] or 1
    print_facts(document["model_type"], {name: fact for name, fact in document.items() if name not in shown_below})
    print_table("", ("part", "parameters", "share"), [(n, v, f"{v / total:.2%}") for n, v in parameters.items()])
    if layers := document.get("layers"):
        print_table("", ("layer", *layers[0]), [(i, *parts.values()) for i, parts in enumerate(layers)])
