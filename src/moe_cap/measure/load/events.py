"""What happened to a request, as it happened: the raw record that every latency is computed from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from moe_cap.metrics.latency import RequestTiming


class FailureKind(StrEnum):
    """What a bad server did."""

    UNREACHABLE = "unreachable"
    STATUS = "status"
    """Another status than 200."""
    SILENT = "silent"
    """Nothing came for longer than the limit: it hung."""
    TOO_LONG = "too_long"
    TOO_MUCH = "too_much"
    """Far more events than an answer of that many tokens has: it streams for ever."""
    GARBAGE = "garbage"
    """Not HTTP, or not a stream of completion events."""
    DIED = "died"
    """The stream ended before the answer did."""
    ERROR_EVENT = "error_event"
    """The server told of an error inside the stream."""
    EMPTY = "empty"
    """A complete answer without one token."""
    ABANDONED = "abandoned"
    """The client gave the run up while the request was under way; not the request's own fault."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request did not complete; `status` is the HTTP status when there was one."""

    kind: FailureKind
    message: str
    status: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


class TokenCounting(StrEnum):
    """How the client knows how many tokens a chunk carried."""

    TOKEN_IDS = "token_ids"  # noqa: S105 - a name, not a secret
    """The chunk listed them."""
    RUNNING_USAGE = "running_usage"
    """Every chunk told the completion's tokens so far."""
    ONE_PER_CHUNK = "one_per_chunk"
    """Assumed, and confirmed: as many chunks as the final usage has tokens."""
    UNKNOWN = "unknown"
    """Assumed and not confirmed: the times are those of chunks, not of tokens."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class RequestEvents:
    """One request, in seconds since the start of the run.

    Attributes:
        id: unique for each attempt; sent as X-Request-Id.
        prompt_index: which prompt of the plan.
        intended_s: when the plan wanted it sent; in a closed loop the moment its place became free, and for the first
            ones the moment when the place before it was taken.
        sent_s: when the client began: the write to an open connection, or the start of connecting.
        connected_s: when a new connection stood; None on one that was open already.
        headers_s: arrival of the response's headers.
        chunk_s: arrival of every chunk that carried tokens, as stamped by the kernel where it does that.
        chunk_tokens: tokens in each of them; see `counting`.
        ended_s: arrival of the last token, or the moment of failure.
        first_answer_s: first chunk that was answer and not reasoning.
        reasoning_tokens: tokens of reasoning chunks.
        token_ids: the answer's, where the server tells them.
        asked_input_tokens: what the prompt should count as; None when nobody counted it.
        asked_output_tokens: the limit that was sent.
    """

    id: str
    prompt_index: int
    intended_s: float
    sent_s: float
    connected_s: float | None
    headers_s: float | None
    chunk_s: tuple[float, ...]
    chunk_tokens: tuple[int, ...]
    counting: TokenCounting
    ended_s: float
    status: int | None
    finish_reason: str | None
    usage: Usage | None
    first_answer_s: float | None
    reasoning_tokens: int
    text: str
    token_ids: tuple[int, ...] | None
    failure: Failure | None
    asked_input_tokens: int | None
    asked_output_tokens: int

    @property
    def token_s(self) -> tuple[float, ...]:
        """Arrival of every token: a chunk of n tokens is n equal times, because that is how a client gets them."""
        return tuple(at for at, tokens in zip(self.chunk_s, self.chunk_tokens, strict=True) for _ in range(tokens))

    @property
    def input_tokens(self) -> int | None:
        """Prompt tokens: the server's count, else the client's own, else unknown."""
        return self.usage.prompt_tokens if self.usage is not None else self.asked_input_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer: the server's count, else those that arrived."""
        return self.usage.completion_tokens if self.usage is not None else sum(self.chunk_tokens)

    def timing(self, *, planned: bool) -> RequestTiming:
        """The events that latencies are computed from; `planned` where the send had a time of its own (open loop)."""
        return RequestTiming(
            sent_s=self.sent_s,
            intended_s=self.intended_s if planned else None,
            token_s=self.chunk_s,
            ended_s=self.ended_s,
            input_tokens=self.input_tokens or 0,
            output_tokens=self.output_tokens,
            error=None if self.failure is None else str(self.failure),
        )

    @property
    def lag_s(self) -> float:
        """How late the client itself was."""
        return self.sent_s - self.intended_s
