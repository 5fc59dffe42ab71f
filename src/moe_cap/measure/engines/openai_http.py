"""The plain side of an OpenAI-compatible server: who it is, what it serves, and scores for the accuracy harness.

Timed load never goes through here (`moe_cap.measure.load` does that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
from pydantic import JsonValue

from moe_cap.errors import ServerError
from moe_cap.measure.engines.base import Continuation, Score

TIMEOUT_S = 300.0
SHOWN = 200


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of /v1/models; `max_tokens` is None where the server does not tell."""

    name: str
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class About:
    """How the server described itself; `name` is None when no engine was recognised.

    Attributes:
        keeps_connections: whether a connection lives on after a stream, as the server announces.
    """

    name: str | None
    version: str | None
    arguments: Mapping[str, JsonValue]
    keeps_connections: bool = True


class Describe(Protocol):
    """Turns an engine's own answer into `About`; None when it is another engine's."""

    def __call__(self, answer: dict[str, Any]) -> About | None:
        """Read one answer."""


def _vllm(answer: dict[str, Any]) -> About | None:
    """GET /version of vLLM: one key."""
    return About("vllm", str(answer["version"]), {}) if set(answer) == {"version"} else None


def _sglang(answer: dict[str, Any]) -> About | None:
    """GET /get_server_info of SGLang: its effective arguments, flat, and the version."""
    if "version" not in answer or "tp_size" not in answer:
        return None
    plain = {name: value for name, value in answer.items() if isinstance(value, str | int | float | bool)}
    return About("sglang", str(answer["version"]), plain)


def _llamacpp(answer: dict[str, Any]) -> About | None:
    """GET /props of llama-server, which says that it keeps connections and closes each after a stream (b11434)."""
    if "build_info" not in answer:
        return None
    kept = ("total_slots", "model_path", "n_ctx")
    arguments = {name: answer[name] for name in kept if name in answer}
    return About("llamacpp", str(answer["build_info"]), arguments, keeps_connections=False)


FINGERPRINTS: tuple[tuple[str, Describe], ...] = (
    ("/get_server_info", _sglang),
    ("/props", _llamacpp),
    ("/version", _vllm),
)
"""Where each engine tells about itself, below the server's root."""


class OpenAiHttp:
    """Single calls, one after the other.

    Args:
        url: base address, ends in /v1.
        headers: e.g. authorization.
        transport: for tests.
    """

    def __init__(self, url: str, headers: Mapping[str, str], transport: httpx2.BaseTransport | None = None) -> None:
        self._url = url.rstrip("/")
        self._client = httpx2.Client(headers=dict(headers), timeout=TIMEOUT_S, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def models(self) -> tuple[ServedModel, ...]:
        """What the server serves.

        Raises:
            ServerError: it cannot be reached, or does not answer as such a server does.
        """
        record = self._json("GET", f"{self._url}/models", None)
        try:
            return tuple(ServedModel(str(item["id"]), item.get("max_model_len")) for item in record["data"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"{self._url}/models is no list of models: {record!r:.{SHOWN}}") from error

    def about(self) -> About:
        """The engine behind the address, by its own words."""
        root = self._url.removesuffix("/v1")
        for path, describe in FINGERPRINTS:
            try:
                answer = self._json("GET", root + path, None)
            except ServerError:
                continue
            found = describe(answer)
            if found is not None:
                return found
        return About(None, None, {})

    def score(self, model: str, continuation: Continuation) -> Score:
        """Score one continuation by echoing the prompt with its log-probabilities.

        Raises:
            ServerError: the server refused or cannot echo.
        """
        body: dict[str, JsonValue] = {
            "model": model,
            "prompt": [*continuation.context, *continuation.continuation],
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }
        return parse_score(self.complete(body), continuation)

    def complete(self, body: dict[str, JsonValue]) -> dict[str, Any]:
        """One whole completion, not streamed.

        Raises:
            ServerError: the server refused, or answered no JSON.
        """
        return self._json("POST", f"{self._url}/completions", body)

    def post(self, path: str, body: dict[str, JsonValue]) -> dict[str, Any]:
        """What an engine offers below the server's root, beside OpenAI's interface; raises as `complete` does."""
        return self._json("POST", self._url.removesuffix("/v1") + path, body)

    def metrics(self) -> str:
        """Prometheus text of /metrics, below the server's root; raises ServerError where there is none."""
        return self._request("GET", self._url.removesuffix("/v1") + "/metrics", None).text

    def _request(self, method: str, url: str, body: dict[str, JsonValue] | None) -> httpx2.Response:
        try:
            response = self._client.request(method, url, json=body)
        except httpx2.HTTPError as error:
            raise ServerError(f"{url}: {error!r}") from error
        if response.status_code != httpx2.codes.OK:
            raise ServerError(f"{url}: HTTP {response.status_code}: {response.text[:SHOWN]}")
        return response

    def _json(self, method: str, url: str, body: dict[str, JsonValue] | None) -> dict[str, Any]:
        response = self._request(method, url, body)
        try:
            record = response.json()
        except ValueError as error:
            raise ServerError(f"{url} answered no JSON: {response.text[:SHOWN]!r}") from error
        if not isinstance(record, dict):
            raise ServerError(f"{url} answered {record!r:.{SHOWN}}, not an object")
        return record


def parse_score(record: dict[str, Any], continuation: Continuation) -> Score:
    """The continuation's part of an echoed completion.

    Raises:
        ServerError: the echo is not there, or is not as long as the prompt.
    """
    start = len(continuation.context)
    end = start + len(continuation.continuation)
    try:
        told = record["choices"][0]["logprobs"]
        own: Sequence[float | None] = told["token_logprobs"][start:end]
        best = [max(top.values()) for top in told["top_logprobs"][start:end]]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ServerError("the server does not echo a prompt's log-probabilities, so it cannot be scored") from error
    known = [value for value in own if value is not None]
    if len(known) != end - start or len(best) != end - start:
        raise ServerError(
            f"{len(known)} log-probabilities for a continuation of {end - start} tokens: another tokenizer"
        )
    return Score(sum(known), all(mine >= top for mine, top in zip(known, best, strict=True)))
