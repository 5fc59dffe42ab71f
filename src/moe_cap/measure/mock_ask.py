"""What a request wants of the mock server, its tokens counted as the served model would count them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from moe_cap.errors import InvalidInputError
from moe_cap.measure.prompt_cache import BLOCK_TOKENS

Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants."""

    serial: int
    chat: bool
    prompt_tokens: int
    output_tokens: int
    running_usage: bool
    token_ids: tuple[int, ...] | None
    cached_tokens: int | None = None


def count_words(text: str) -> int:
    """The mock's own tokens."""
    return len(text.split())


def counter_of(folder: str) -> Count:
    """Counts as the tokenizer in a model's folder does, its special tokens included; by words where none is named.

    Raises:
        InvalidInputError: there is no tokenizer.
    """
    if not folder:
        return count_words
    from tokenizers import Tokenizer  # noqa: PLC0415 only a mock of a given model needs it

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise InvalidInputError(f"{folder} has no tokenizer.json: give the folder of a model")
    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text).ids)


def count_prompt(content: object, count: Count) -> int:
    """Tokens of a prompt: ids one by one, texts as `count` has them, turns by their texts."""
    if isinstance(content, str):
        return count(content)
    if isinstance(content, list):
        return sum(count_prompt(item.get("content", ""), count) if isinstance(item, dict) else 1 for item in content)
    return 0


class PrefixCache:
    """Prompts that were seen, as engines keep them: in blocks, each found only with everything before it."""

    def __init__(self) -> None:
        self._seen: set[tuple[JsonValue, ...]] = set()

    def look_up(self, prompt: JsonValue) -> int:
        """Tokens of a prompt that were seen before, which it is from now on; the last token is computed always."""
        tokens = tuple(prompt.split() if isinstance(prompt, str) else prompt if isinstance(prompt, list) else ())
        prefixes = [tokens[:end] for end in range(BLOCK_TOKENS, len(tokens), BLOCK_TOKENS)]
        found = max((len(prefix) for prefix in prefixes if prefix in self._seen), default=0)
        self._seen.update(prefixes)
        return found


def read_ask(serial: int, path: str, body: dict[str, JsonValue], count: Count, cache: PrefixCache | None = None) -> Ask:
    """The request's wishes, as a serving engine would understand them."""
    options = body.get("stream_options")
    prompt = body.get("messages", body.get("prompt"))
    wanted = body.get("max_tokens", body.get("max_completion_tokens", 16))
    output_tokens = wanted if isinstance(wanted, int) else 16
    return Ask(
        serial=serial,
        chat="chat" in path,
        prompt_tokens=count_prompt(prompt, count),
        output_tokens=output_tokens,
        running_usage=isinstance(options, dict) and bool(options.get("continuous_usage_stats")),
        token_ids=tuple((serial * 7 + i * 13) % 97 for i in range(output_tokens))
        if body.get("return_token_ids")
        else None,
        cached_tokens=None if cache is None else cache.look_up(body.get("prompt")),
    )
