"""What an engine tells of itself, as far as it may be published: no key, no address, no folder of somebody's disk.

A name is read by `_is_private`, a list of arguments by `publishable_command`, a text by `_text`: engines tell commands
and Python dictionaries as text too, so what is true of names and arguments is looked for in there as well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

HIDDEN = "(not published)"
HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
SECRET = re.compile(
    r"(?:^|_)(?:(?:password|passwd|passphrase|secrets?|credentials?|authorization"
    r"|(?:api|admin|auth|access|private)_?keys?)(?:_|$)|(?:hf|api|auth|access)?_?token$|hft$)"
)
"""Of plain names: `hf_token`, `admin_api_key`, `ssl_keyfile_password`, llama-server's `hft`; not `max_total_tokens`."""
ABBREVIATED = re.compile(r"(?:api(?:_ke?)?|admin_\w*|hf_to?k?e?|ssl_keyfile_\w*)")
"""Options of the engines that hold a secret, cut short: argparse takes `--api-k sk-1` for `--api-key sk-1`."""
ADDRESS = re.compile(r"(?:^|_)(?:host(?:name)?s?|ports?|addr(?:s|ess(?:es)?)?|ur[il]s?|ips?|endpoints?)$")
HARMLESS = re.compile(r"(?:\w+://)?(?:127\.0\.0\.1|0\.0\.0\.0|localhost|\[?::1\]?)(?::\d+)?(?:/[\w./-]*)?|\{\w+\}")
"""Addresses that every machine has, and the places that are filled in at the start (`{port}`)."""
STRING = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
NAMED = re.compile(
    r"""\\*['"](?:(?P<key>[\w.-]+)\\*['"]\s*:|(?P<option>-[\w.-]+)\\*['"]\s*,)\s*|(?:(?<=\()|(?<=,\s))(?P<keyword>\w+)="""
)
"""A name before its value in a text: `'api_key': `, `'--api-key', ` and, of an object, `api_key=`."""
ANOTHER = re.compile(r""",(?!\s*\\*['"]-)""")
"""Before one more value of the same option."""
TOKEN = re.compile(rf"{STRING}|.", re.DOTALL)
URL = re.compile(r"""[A-Za-z][\w+.-]*://[^\s'",]+""")
COMMAND = re.compile(r"(?:^|\s)--?[A-Za-z]")
ASSIGNED = re.compile(r"(?P<name>[\w.-]+)=(?P<value>.*)", re.DOTALL)
PATH = re.compile(r"^(?:/|~[\w.-]*/|[A-Za-z]:\\).*?(?P<name>[^/\\]+)[/\\]*$", re.DOTALL)
PIECE = re.compile(rf"""{STRING}|(?<!\}})[^\s'"=,;()\[\]{{}}]+""", re.DOTALL)
"""What may be a path within a text; what follows a place such as `{home}` is none."""


def publishable(told: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Names and values without what would harm somebody; a path keeps its last part, which names the model or file."""
    return {name: _value(value) for name, value in told.items() if not _is_private(name, value)}


def publishable_command(words: Sequence[JsonValue]) -> list[JsonValue]:
    """A command's words; those behind a private option, up to the next option, are hidden."""
    shown: list[JsonValue] = []
    option = ""
    for word in words:
        if isinstance(word, str) and word.startswith("-"):
            option = "" if "=" in word else word
            shown.append(_word(word))
        else:
            shown.append(HIDDEN if _is_private(option, word) else _word(word))
    return shown


def is_secret(option: str) -> bool:
    """Whether an option of a command, `--hf-token` or `--api-key=sk-1`, is given something to be kept."""
    return option.startswith("-") and _is_kept(re.split(r"[=\s]", option)[0])


def _is_kept(name: str) -> bool:
    plain = _plain(name)
    return bool(SECRET.search(plain) or (name.startswith("-") and ABBREVIATED.fullmatch(plain)))


def _is_private(name: str, value: JsonValue) -> bool:
    address = ADDRESS.search(_plain(name)) and not HARMLESS.fullmatch(str(value).strip("'\""))
    return bool(_is_kept(name) or address)


def _plain(name: str) -> str:
    """One spelling of a name: `apiKey`, `--api-key` and `API_KEY` are `api_key`."""
    return re.sub(r"[.-]", "_", HUMP.sub("_", name.lstrip("-"))).lower()


def _value(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return publishable(value)
    if isinstance(value, list):
        return publishable_command(value)
    return _text(value) if isinstance(value, str) else value


def _word(word: JsonValue) -> JsonValue:
    """One of a list: `name=value` is decided by its name, then by its value."""
    assigned = ASSIGNED.fullmatch(word) if isinstance(word, str) else None
    if assigned:
        private = _is_private(assigned["name"], assigned["value"])
        return f"{assigned['name']}={HIDDEN if private else _text(assigned['value'])}"
    option = isinstance(word, str) and word.startswith("-") and len(word.split()) == 1
    return word if option else _value(word)


def _text(text: str) -> str:
    open_text = URL.sub(lambda found: found[0] if HARMLESS.fullmatch(found[0]) else HIDDEN, _without_named(text))
    if COMMAND.search(open_text):
        return " ".join(map(str, publishable_command(_split(open_text))))
    return _last_part(open_text) if PATH.match(open_text) else PIECE.sub(_piece, open_text)


def _without_named(text: str) -> str:
    """A text without the values of the private names in it."""
    shown, end = "", 0
    for found in NAMED.finditer(text):
        name = found["key"] or found["option"] or found["keyword"]
        after = _end_of_value(text, found.end())
        while found["option"] and (another := ANOTHER.match(text, after)):
            after = _end_of_value(text, another.end())
        if found.start() >= end and _is_private(name, text[found.end() : after]):
            shown += f"{text[end : found.end()]}'{HIDDEN}'"
            end = after
    return shown + text[end:]


def _end_of_value(text: str, start: int) -> int:
    """Where a value ends, with all that its brackets hold."""
    depth = 0
    for token in TOKEN.finditer(text, start):
        if depth == 0 and token[0] in {",", ")", "]", "}"}:
            return token.start()
        depth += (token[0] in {"(", "[", "{"}) - (token[0] in {")", "]", "}"})
    return len(text)


def _split(command: str) -> list[JsonValue]:
    """Words as a shell has them; where the quotes of a command do not close, they are no shell's."""
    try:
        return [*shlex.split(command)]
    except ValueError:
        return [*command.split()]


def _piece(found: re.Match[str]) -> str:
    piece = found[0]
    return f"{piece[0]}{_word(piece[1:-1])}{piece[0]}" if piece[0] in "'\"" else _last_part(piece)


def _last_part(text: str) -> str:
    """Of a path; any other text as it is."""
    path = PATH.match(text)
    return path["name"] if path else text
