"""The plain side of an OpenAI-compatible server: who it is, what it serves, and scores for the accuracy harness.

Timed load never goes through here (`moe_cap.measure.load` does that).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from anyio import fail_after
from anyio.from_thread import start_blocking_portal
from pydantic import JsonValue

from moe_cap.errors import AccessDeniedError, EngineStartError, ServerError
from moe_cap.measure.engines.base import Continuation, Score
from moe_cap.measure.engines.fingerprints import FINGERPRINTS, NOBODY, About
from moe_cap.measure.load import Limits

ASIDE_S = 3.0
"""For what a server tells beside its service; whoever does not tell it by then is not known by it."""
DENIED = frozenset({401, 403})
SHOWN = 200


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One entry of /v1/models; what the server does not tell is None."""

    name: str
    max_tokens: int | None
    owner: str | None = None


class OpenAiHttp:
    """Single calls, each on a connection of its own and over within its time, whatever the server does.

    They go straight to the server, as the load does: a proxy would be shown the key.

    Args:
        url: base address, ends in /v1.
        headers: e.g. authorization.
        limits: `silence_s` for a plain question, and between two parts of an answer; `request_s` for a completion.
        transport: for tests.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        limits: Limits | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._root = self._url.removesuffix("/v1")
        self._headers = dict(headers)
        self._limits = limits or Limits()
        self._aside_s = min(ASIDE_S, self._limits.silence_s)
        self._transport = transport
        self._tls = ssl.create_default_context()

    def models(self) -> tuple[ServedModel, ...]:
        """What the server serves.

        Raises:
            ServerError: it cannot be reached, or does not answer as such a server does.
        """
        record = self._json("GET", f"{self._url}/models", None, self._limits.silence_s)
        try:
            return tuple(
                ServedModel(str(item["id"]), item.get("max_model_len"), item.get("owned_by")) for item in record["data"]
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"{self._url}/models is no list of models: {record!r:.{SHOWN}}") from error

    def served(self, wanted: str | None) -> ServedModel:
        """The model of this name; where none is named, the only one.

        Raises:
            AccessDeniedError: the key is missing or wrong.
            EngineStartError: nobody answers there, or the model is not served.
        """
        try:
            models = self.models()
        except AccessDeniedError:
            raise
        except ServerError as error:
            root = self._url.partition("/v1/")[0]
            ending = "" if self._url.endswith("/v1") else f"; such an address ends in /v1: try {root}/v1"
            raise EngineStartError(f"no OpenAI-compatible server answers at {self._url}: {error}{ending}") from error
        names = ", ".join(model.name for model in models) or "none"
        chosen = [model for model in models if wanted in {None, model.name}]
        if len(chosen) != 1:
            asked = "no single model" if wanted is None else f"no model {wanted!r}"
            raise EngineStartError(f"{self._url} serves {asked}; it serves: {names}")
        return chosen[0]

    def about(self) -> About:
        """The engine behind the address, by its own words."""
        for path, describe in FINGERPRINTS:
            try:
                answer = self._json("GET", self._root + path, None, self._aside_s)
            except ServerError:
                continue
            found = describe(answer, self)
            if found is not None:
                return found
        return NOBODY

    def owners(self) -> frozenset[str]:
        """Who owns the models, by the server's words; raises as `models` does."""
        return frozenset(model.owner for model in self.models() if model.owner is not None)

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
        return self._json("POST", f"{self._url}/completions", body, self._limits.request_s)

    def post(self, path: str, body: dict[str, JsonValue]) -> dict[str, Any]:
        """What an engine offers below the server's root, beside OpenAI's interface; raises as `complete` does."""
        return self._json("POST", self._root + path, body, self._limits.request_s)

    def metrics(self) -> str:
        """Prometheus text of /metrics, below the server's root.

        Raises:
            ServerError: there is none; why goes into records, so it tells neither the address nor the server's words.
        """
        try:
            response = self._answer("GET", f"{self._root}/metrics", None, self._aside_s)
        except ServerError as error:
            raise ServerError("/metrics gave no answer") from error
        if response.status_code != httpx2.codes.OK:
            raise ServerError(f"/metrics: HTTP {response.status_code}")
        return response.text

    def _request(self, method: str, url: str, body: dict[str, JsonValue] | None, limit_s: float) -> httpx2.Response:
        response = self._answer(method, url, body, limit_s)
        if response.status_code in DENIED:
            told = f"HTTP {response.status_code}: {response.text[:SHOWN]}"
            raise AccessDeniedError(f"{url} wants a key that it takes, set MOE_CAP_API_KEY: {told}")
        if response.status_code != httpx2.codes.OK:
            raise ServerError(f"{url}: HTTP {response.status_code}: {response.text[:SHOWN]}")
        return response

    def _answer(self, method: str, url: str, body: dict[str, JsonValue] | None, limit_s: float) -> httpx2.Response:
        """Whatever the status of it."""
        try:
            with start_blocking_portal() as portal:
                return portal.call(self._ask, method, url, body, limit_s)
        except TimeoutError as error:
            raise ServerError(f"{url} gave no whole answer within {limit_s:g} s") from error
        except httpx2.HTTPError as error:
            raise ServerError(f"{url}: {error!r}") from error

    async def _ask(self, method: str, url: str, body: dict[str, JsonValue] | None, limit_s: float) -> httpx2.Response:
        """The call itself; on an event loop, because only there a call as a whole has a time, and not each read."""
        waits = httpx2.Timeout(min(limit_s, self._limits.silence_s), connect=self._limits.connect_s)
        with fail_after(limit_s):
            async with httpx2.AsyncClient(
                headers=self._headers, timeout=waits, transport=self._transport, verify=self._tls, trust_env=False
            ) as client:
                return await client.request(method, url, json=body)

    def _json(self, method: str, url: str, body: dict[str, JsonValue] | None, limit_s: float) -> dict[str, Any]:
        response = self._request(method, url, body, limit_s)
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
