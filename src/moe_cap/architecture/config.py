"""config.json in, checked values out: every complaint names the key and what was expected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_cap.errors import ConfigError

MAX_CONFIG_BYTES = 16 * 1024 * 1024  # the largest published one, with 60,000 ignored modules in it, has 2.8 MB
MAX_COUNT = 1 << 40  # far above any real size, and low enough that products stay exact everywhere
MAX_LAYERS = 4096


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a config.json, or the one inside a model folder.

    Raises:
        ConfigError: no such file, too large, not UTF-8 JSON, or not an object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or error}") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file} is larger than {MAX_CONFIG_BYTES} bytes: this is no config.json")
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid JSON ({error}): was it cut off?") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file} holds a JSON {type(config).__name__}, expected an object with a model_type")
    return config


class Config:
    """A view of one section of a config that only gives out checked values.

    Every getter takes the key's spellings, first the one to name in a complaint. A key that is absent or null takes
    the default, and is a `ConfigError` without one.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path

    def _find(self, keys: tuple[str, ...]) -> tuple[str, Any]:
        for key in keys:
            if self._values.get(key) is not None:
                return self._path + key, self._values[key]
        return self._path + keys[0], None

    def has(self, *keys: str) -> bool:
        """Whether any of the spellings is there and not null."""
        return self._find(keys)[1] is not None

    def _integer(self, keys: tuple[str, ...], default: int | None, minimum: int) -> int:
        key, value = self._find(keys)
        if value is None:
            if default is None:
                spellings = " (or " + ", ".join(keys[1:]) + ")" if len(keys) > 1 else ""
                raise ConfigError(f"config lacks {key}{spellings}: expected an integer >= {minimum}", key=key)
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"config key {key} is {value!r}: expected an integer >= {minimum}", key=key)
        if not minimum <= value <= MAX_COUNT:
            raise ConfigError(
                f"config key {key} is {value}: expected an integer >= {minimum} and <= {MAX_COUNT}", key=key
            )
        return value

    def integer(self, *keys: str, default: int | None = None) -> int:
        """Any integer."""
        return self._integer(keys, default, -MAX_COUNT)

    def size(self, *keys: str, default: int | None = None) -> int:
        """An integer of at least 1."""
        return self._integer(keys, default, 1)

    def count(self, *keys: str, default: int | None = None) -> int:
        """An integer of at least 0."""
        return self._integer(keys, default, 0)

    def flag(self, *keys: str, default: bool) -> bool:
        """True or false."""
        key, value = self._find(keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigError(f"config key {key} is {value!r}: expected true or false", key=key)
        return value

    def word(self, *keys: str, default: str | None = None) -> str:
        """A string."""
        key, value = self._find(keys)
        if value is None:
            if default is None:
                raise ConfigError(f"config lacks {key}: expected a string", key=key)
            return default
        if not isinstance(value, str):
            raise ConfigError(f"config key {key} is {value!r}: expected a string", key=key)
        return value

    def items(self, *keys: str, kind: type, length: int | None = None) -> tuple[Any, ...] | None:
        """A list of values of one type, of a given length if that is asked; None if there is none."""
        key, value = self._find(keys)
        if value is None:
            return None
        right = isinstance(value, Sequence) and not isinstance(value, str) and all(type(item) is kind for item in value)
        if not right:
            raise ConfigError(f"config key {key} is {value!r:.80}: expected a list of {kind.__name__}", key=key)
        if length is not None and len(value) < length:
            raise ConfigError(f"config key {key} has {len(value)} entries: expected one for each of {length}", key=key)
        return tuple(value[:length])

    def is_list(self, *keys: str) -> bool:
        """Whether the key holds a list (some keys hold a number or a list of them)."""
        return isinstance(self._find(keys)[1], list | tuple)

    def is_text(self, *keys: str) -> bool:
        """Whether the key holds a string (some keys hold a number or "auto")."""
        return isinstance(self._find(keys)[1], str)

    def section(self, *keys: str) -> Config:
        """A nested object."""
        key, value = self._find(keys)
        if not isinstance(value, Mapping):
            raise ConfigError(f"config key {key} is {value!r:.80}: expected an object", key=key)
        return Config(value, f"{key}.")

    def mapping(self, *keys: str) -> tuple[str, ...]:
        """The names in a nested object, none if it is absent."""
        return tuple(self.section(*keys)._values) if self.has(*keys) else ()

    def objects(self, *keys: str) -> Mapping[str, Mapping[str, Any]]:
        """A nested object of objects, checked at once: some hold 20,000 of them; empty if it is absent."""
        if not self.has(*keys):
            return {}
        values = self.section(*keys)._values
        for name, value in values.items():
            if not isinstance(value, Mapping):
                key = f"{self._path}{keys[0]}.{name}"
                raise ConfigError(f"config key {key} is {value!r:.80}: expected an object", key=key)
        return values

    def num_layers(self, *keys: str) -> int:
        """Number of layers, bounded so that a wrong digit cannot fill the memory."""
        key, _ = self._find(keys)
        number = self.size(*keys)
        if number > MAX_LAYERS:
            raise ConfigError(f"config key {key} is {number}: expected at most {MAX_LAYERS} layers", key=key)
        return number

    def layer_types(self, length: int, known: Sequence[str], *, default: Sequence[str]) -> tuple[str, ...]:
        """The kind of every layer from `layer_types`, each one of `known`."""
        found = self.items("layer_types", kind=str, length=length) or tuple(default)
        for kind in found:
            if kind not in known:
                key = f"{self._path}layer_types"
                raise ConfigError(f"config key {key} has {kind!r}: expected one of {', '.join(known)}", key=key)
        return found

    def complain(self, key: str, message: str) -> ConfigError:
        """The error to raise about a value whose parts do not fit together."""
        return ConfigError(f"config key {self._path}{key}: {message}", key=self._path + key)
