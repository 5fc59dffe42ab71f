"""The model that a command is about: its structure, and how it is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moe_cap.architecture import Architecture, parse_config
from moe_cap.architecture.config import read_config_file
from moe_cap.precision import StoragePlan, parse_quantization, read_quantization, storage_of

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="A config.json, or the folder that holds one.")]
PrecisionName = Annotated[
    str | None, typer.Option("--precision", help="Number format of the weights; what the config says if not given.")
]
KvDtype = Annotated[
    str | None, typer.Option("--kv-dtype", help="Number format of the KV cache; the precision's own if not given.")
]


def read_model(config: Path, precision: str | None, kv_dtype: str | None) -> tuple[Architecture, StoragePlan]:
    """Parse a config.json and decide how the model is stored.

    Raises:
        InvalidInputError: the config, the precision or the cache's format cannot be used.
    """
    values = read_config_file(config)
    arch = parse_config(values)
    if precision:
        storage = storage_of(arch, precision)
    else:
        folder = model_folder(config)
        storage = read_quantization(folder, values) if folder else parse_quantization(values)
    return arch, storage.with_kv(kv_dtype) if kv_dtype else storage


def model_folder(config: Path) -> Path | None:
    """The folder of the model that a config belongs to; None for a config that lies somewhere under its own name."""
    if config.is_dir():
        return config
    return config.parent if config.name == "config.json" else None
