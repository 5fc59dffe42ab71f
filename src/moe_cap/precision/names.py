"""Which modules the lists in a quantised checkpoint's config mean."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from moe_cap.errors import UnknownPrecisionError

_ROOTS = ("", "model.", "language_model.", "language_model.model.", "model.language_model.")


class ModuleNames:
    """A set of modules, as such a list names them.

    An entry names a module and everything inside it, by its path or by the end of it; `re:` introduces a regular
    expression, `*` and `?` are wildcards. Wrappers differ in what they call the language model, so names are compared
    from "layers." on.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        plain, patterns = set(), []
        for entry in entries:
            if entry.startswith("re:"):
                patterns.append(entry[3:])
            elif "*" in entry or "?" in entry:
                patterns.append(fnmatch.translate(entry) + "|" + fnmatch.translate(entry + ".*"))
            else:
                plain.add(_below_root(entry.removesuffix(".weight")))
        self._plain = frozenset(plain)
        try:
            self._pattern = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        except re.error as error:
            raise UnknownPrecisionError(f"quantization_config: a module pattern is no expression: {error}") from error

    def __contains__(self, module: str) -> bool:
        name = _below_root(module)
        words = name.split(".")
        spans = ((start, end) for start in range(len(words)) for end in range(start + 1, len(words) + 1))
        if any(".".join(words[start:end]) in self._plain for start, end in spans):
            return True
        return self._pattern is not None and any(self._pattern.match(root + name) for root in _ROOTS)


def _below_root(name: str) -> str:
    """The name from "layers." on, unless it is a vision tower's."""
    start = name.find("layers.")
    return name[start:] if start > 0 and "vis" not in name[:start] else name
