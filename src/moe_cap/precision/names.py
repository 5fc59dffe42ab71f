"""Which modules the lists in a quantised checkpoint's config mean."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from moe_cap.errors import UnknownPrecisionError

_ROOTS = ("", "model.", "language_model.", "language_model.model.", "model.language_model.")
_ANY_ROOT = "model.language_model.model."  # holds every root, for patterns that begin with a wildcard anyway


def _union(patterns: list[str]) -> re.Pattern[str] | None:
    """One expression that matches what any of the patterns matches."""
    try:
        return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
    except re.error as error:
        raise UnknownPrecisionError(f"quantization_config: a module pattern is no expression: {error}") from error


class ModuleNames:
    """A set of modules, as such a list names them.

    An entry names a module and everything inside it, by its path or by the end of it; `re:` introduces a regular
    expression, `*` and `?` are wildcards. Wrappers differ in what they call the language model, so names are compared
    from "layers." on. Lists may hold 20,000 entries and are asked about 2,000 modules, hence the four kinds of entry.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        plain: set[str] = set()
        prefixes: list[str] = []
        anchored: list[str] = []
        floating: list[str] = []
        for entry in entries:
            if entry.startswith("re:"):
                (floating if entry.startswith("re:.*") else anchored).append(entry[3:])
            elif entry.endswith("*") and not any(mark in entry[:-1] for mark in "*?["):
                prefixes.append(_below_root(entry[:-1]))
            elif "*" in entry or "?" in entry:
                pattern = fnmatch.translate(entry) + "|" + fnmatch.translate(entry + ".*")
                (floating if entry.startswith("*") else anchored).append(pattern)
            else:
                plain.add(_below_root(entry.removesuffix(".weight")))
        self._paths = frozenset(entry for entry in plain if entry.startswith("layers."))
        self._parts = frozenset(plain - self._paths)
        self._prefixes, self._anchored, self._floating = tuple(prefixes), _union(anchored), _union(floating)

    def __contains__(self, module: str) -> bool:
        name = _below_root(module)
        return name.startswith(self._prefixes) or self._lists(name) or self._matches(name)

    def _lists(self, name: str) -> bool:
        words = name.split(".")
        if self._paths and any(".".join(words[:end]) in self._paths for end in range(2, len(words) + 1)):
            return True
        if not self._parts:
            return False
        spans = ((start, end) for start in range(len(words)) for end in range(start + 1, len(words) + 1))
        return any(".".join(words[start:end]) in self._parts for start, end in spans)

    def _matches(self, name: str) -> bool:
        if self._floating is not None and self._floating.match(_ANY_ROOT + name):
            return True
        return self._anchored is not None and any(self._anchored.match(root + name) for root in _ROOTS)


def _below_root(name: str) -> str:
    """The name from "layers." on, unless it is a vision tower's."""
    start = name.find("layers.")
    return name[start:] if start > 0 and "vis" not in name[:start] else name
