"""Which reader understands which `model_type`: one line per family, and no matching on a model's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moe_cap.architecture.config import Config, read_config_file
from moe_cap.architecture.families import deepseek, dense, gpt_oss, mixtral, olmoe, qwen2_moe, qwen3_moe
from moe_cap.architecture.model import Architecture
from moe_cap.errors import ConfigError, UnknownModelTypeError

Reader = Callable[[Config], Architecture]

FAMILIES: dict[str, Reader] = {
    "deepseek_v2": deepseek.read_v2,
    "deepseek_v3": deepseek.read_v3,
    "gpt_oss": gpt_oss.read,
    "llama": dense.read_llama,
    "mistral": dense.read_mistral,
    "mixtral": mixtral.read,
    "olmoe": olmoe.read,
    "qwen2": dense.read_qwen2,
    "qwen2_moe": qwen2_moe.read,
    "qwen3": dense.read_qwen3,
    "qwen3_moe": qwen3_moe.read,
}


def parse_config(config: Mapping[str, Any]) -> Architecture:
    """The exact structure behind a config.json.

    Raises:
        UnknownModelTypeError: no reader for this `model_type`.
        ConfigError: a key is missing or holds a value of the wrong kind; `key` names it.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"a config is a JSON object, not {type(config).__name__}")
    model_type = Config(config).word("model_type")
    reader = FAMILIES.get(model_type)
    if reader is None:
        raise UnknownModelTypeError(
            f"no reader for model_type {model_type!r}: add a file to moe_cap/architecture/families and its line to"
            " moe_cap/architecture/registry.py, or count it from the model itself with `moe-cap describe --introspect`",
            key="model_type",
        )
    return reader(Config(config))


def read_config(path: str | Path) -> Architecture:
    """Read the config.json at `path`, or in the model folder `path`, and parse it."""
    return parse_config(read_config_file(Path(path)))
