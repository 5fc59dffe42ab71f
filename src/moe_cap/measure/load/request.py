"""What is asked of the server: where, which prompts, how long the answers are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit

from pydantic import JsonValue

from moe_cap.errors import InvalidInputError


class Api(StrEnum):
    """Which of the two streaming interfaces is driven; the value is its path below /v1."""

    COMPLETIONS = "completions"
    CHAT = "chat/completions"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request of the plan.

    Attributes:
        content: text; token ids (completions only: exact, no tokenizer between us and the engine); or turns of a chat.
        output_tokens: length of the answer, exact under `ignore_eos`, else a limit.
        input_tokens: what the server must count; None where nobody counted (text under a chat template).
    """

    content: str | tuple[int, ...] | tuple[Message, ...]
    output_tokens: int
    input_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """An OpenAI-compatible server and how it is spoken to.

    Attributes:
        url: base address, e.g. `http://host:8000/v1`.
        model: name that the server knows the model by.
        ignore_eos: answers are exactly as long as asked; the returned counts are checked.
        headers: e.g. authorization.
        extra: further fields of every body; `{"return_token_ids": True}` where the engine knows it.
        unending: how the server is told that, and goes on after the end token.
        running_usage: ask for the token count in every chunk (vLLM, SGLang); off for servers that refuse the field.
        ca_file: certificate authority for https; None for the system's.
    """

    url: str
    model: str
    api: Api = Api.COMPLETIONS
    ignore_eos: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    running_usage: bool = True
    ca_file: str | None = None
    unending: Mapping[str, JsonValue] = field(default_factory=lambda: {"ignore_eos": True})

    def split(self) -> SplitResult:
        """The address in its parts.

        Raises:
            InvalidInputError: it is not an http address with a host.
        """
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or any(character.isspace() for character in self.url):
            raise InvalidInputError(f"{self.url!r} is not an address: give one like http://host:8000/v1")
        return parts


def body_of(target: Target, prompt: Prompt) -> dict[str, JsonValue]:
    """The JSON body of one request.

    Raises:
        InvalidInputError: the interface does not take this kind of prompt.
    """
    body: dict[str, JsonValue] = {
        "model": target.model,
        "stream": True,
        "temperature": 0,
        "max_tokens": prompt.output_tokens,
    }
    options: dict[str, JsonValue] = {"include_usage": True}
    if target.running_usage:
        options["continuous_usage_stats"] = True
    body["stream_options"] = options
    if target.ignore_eos:
        body |= target.unending
    content = prompt.content
    if target.api is Api.CHAT:
        body["messages"] = list(_turns(content))
    elif isinstance(content, str):
        body["prompt"] = content
    elif content and all(isinstance(token, int) for token in content):
        body["prompt"] = [token for token in content if isinstance(token, int)]
    else:
        raise InvalidInputError("the completions interface takes text or token ids: drive chats with Api.CHAT")
    return body | dict(target.extra)


def _turns(content: str | Sequence[int | Message]) -> Iterator[JsonValue]:
    if isinstance(content, str):
        yield {"role": "user", "content": content}
        return
    for turn in content:
        if not isinstance(turn, Message):
            raise InvalidInputError("the chat interface takes text or turns: drive token ids with Api.COMPLETIONS")
        yield {"role": turn.role, "content": turn.content}


def encode_request(target: Target, prompt: Prompt, request_id: str) -> bytes:
    """The whole HTTP request, ready for the socket: nothing is left to do at the moment of sending."""
    parts = target.split()
    body = json.dumps(body_of(target, prompt), separators=(",", ":")).encode()
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Request-Id": request_id,
        **target.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    path = f"{parts.path.rstrip('/')}/{target.api.value}"
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
