"""What a checkpoint says about itself: bytes and dtypes from safetensors headers, without reading a tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_cap.errors import ConfigError

MAX_HEADER_BYTES = 100_000_000  # the format's own limit (safetensors, README, Format)
INDEX_NAME = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file.

    Attributes:
        dtype: as safetensors spells it ("BF16", "F8_E4M3", "I32").
        num_bytes: bytes in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All tensors of a model's files by name."""

    tensors: Mapping[str, StoredTensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors, headers not included."""
        return sum(tensor.num_bytes for tensor in self.tensors.values())


def _tensor(file: Path, name: str, entry: Any) -> StoredTensor:
    try:
        start, end = entry["data_offsets"]
        shape, dtype = tuple(int(size) for size in entry["shape"]), str(entry["dtype"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{file}: the header's entry for {name!r} is malformed", key=name) from error
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start <= end or min(shape, default=0) < 0:
        raise ConfigError(f"{file}: {name!r} has offsets {start!r} to {end!r} and shape {shape}", key=name)
    return StoredTensor(dtype, shape, end - start)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors that a safetensors file lists in its header.

    Raises:
        ConfigError: no such file, no safetensors file, or one that was cut off.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
                raise ConfigError(f"{file} is no safetensors file, or was cut off in its header")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{file} has a header that is no JSON: is it a safetensors file?") from error
    if not isinstance(header, dict):
        raise ConfigError(f"{file} has a header that is no JSON object")
    tensors = {name: _tensor(file, name, entry) for name, entry in header.items() if name != "__metadata__"}
    if 8 + length + max((entry["data_offsets"][1] for entry in _entries(header)), default=0) > size:
        raise ConfigError(f"{file} was cut off: its header lists tensors beyond its {size} bytes")
    return tensors


def _entries(header: Mapping[str, Any]) -> list[Any]:
    return [entry for name, entry in header.items() if name != "__metadata__"]


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_NAME
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        listed = json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{index} is no safetensors index: expected an object with a weight_map") from error
    names = {str(name) for name in listed}
    if any("/" in name or "\\" in name or name.startswith(".") for name in names):
        raise ConfigError(f"{index} names files outside its folder")
    return [folder / name for name in sorted(names)]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the headers of a safetensors file, or of all files of a model folder.

    Raises:
        ConfigError: nothing to read, or a file that is damaged.
    """
    place = Path(path)
    files = [place] if place.is_file() else _shards(place)
    if not files:
        raise ConfigError(f"{place} holds no safetensors file")
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        tensors |= read_header(file)
    return Checkpoint(tensors)


def read_weight_bytes(folder: Path) -> int | None:
    """Bytes of the tensors in a model folder's files, or those that its index adds up to; None with neither.

    Raises:
        ConfigError: a file or an index that is damaged.
    """
    index = folder / INDEX_NAME
    if not index.exists():
        return read_checkpoint(folder).num_bytes if any(folder.glob("*.safetensors")) else None
    if all(shard.exists() for shard in _shards(folder)):
        return read_checkpoint(folder).num_bytes
    try:
        return int(json.loads(index.read_bytes())["metadata"]["total_size"])
    except (KeyError, TypeError, ValueError):
        return None
