"""What an engine tells of itself, as far as it may be published: no key, no address, no folder of somebody's disk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

HIDDEN = "(not published)"
SECRET = re.compile(
    r"(?:^|[_-])(?:(?:password|passwd|secrets?|(?:api|admin|auth|access|private)[_-]?keys?)(?:[_-]|$)|token$)"
)
"""Of names: `hf_token`, `admin_api_key`, `--ssl-keyfile-password`; not `max_total_tokens`."""
ADDRESS = re.compile(r"(?:^|[_-])(?:host|ports?|addr|address|url|uri|ips?)$")
IN_TEXT = re.compile(r"""(?P<name>['"](?P<bare>[\w-]+)['"]: )(?P<value>\[[^\]]*\]|'[^']*'|"[^"]*"|[^,}]*)""")
"""A name and its value in a Python dictionary that a log has as text."""
PATH = re.compile(r"^(?:/|~/|[A-Za-z]:\\).*?(?P<name>[^/\\]*)[/\\]*$")


def publishable(told: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Names and values without what would harm somebody; a path keeps its last part, which names the model or file."""
    return {name: _value(name, value) for name, value in told.items() if not _is_private(name)}


def _is_private(name: str) -> bool:
    return bool(SECRET.search(name) or ADDRESS.search(name))


def is_secret(option: str) -> bool:
    """Whether an option of a command, `--hf-token` or `--api-key=sk-1`, is given something to be kept."""
    return option.startswith("-") and SECRET.search(option.partition("=")[0]) is not None


def _value(name: str, value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return publishable(value)
    if isinstance(value, list):
        return _command(value)
    if isinstance(value, str):
        return IN_TEXT.sub(_in_text, _last_part(value))
    return value


def _in_text(found: re.Match[str]) -> str:
    if _is_private(found["bare"]):
        return f"{found['name']}'{HIDDEN}'"
    value = found["value"]
    bare = value.strip("'\"")
    return found["name"] + value.replace(bare, _last_part(bare))


def _last_part(text: str) -> str:
    """Of a path; any other text as it is."""
    path = PATH.match(text)
    return path["name"] if path else text


def _command(words: Sequence[JsonValue]) -> list[JsonValue]:
    """A command's words; those behind a secret option, up to the next option, are hidden."""
    shown: list[JsonValue] = []
    hiding = False
    for word in words:
        text = word if isinstance(word, str) else ""
        if text.startswith("-"):
            hiding = is_secret(text) and "=" not in text
            name, equals, _ = text.partition("=")
            shown.append(f"{name}={HIDDEN}" if is_secret(text) and equals else word)
        else:
            shown.append(HIDDEN if hiding else _value("", word))
    return shown
