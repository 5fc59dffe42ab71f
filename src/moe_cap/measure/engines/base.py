"""The waist between the measuring walk and every engine, in process or behind HTTP.

An `Engine` is a description: it can be asked what it could do (`probe`) and how it would be started (`launch_spec`)
without starting anything. `start` gives a `Session`, the running engine: it carries requests (`run`, the timed pass,
without instrumentation), tells which experts the same tokens were sent to (`route`, the second pass), and answers the
accuracy harness (`score`, `answer`) with the very same weights and settings. What an engine hands back is raw:
completions and steps with their members. Everything that is computed from them is computed elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from moe_cap.architecture import Architecture
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision import StoragePlan
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource, StepKind


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine could do on this machine.

    Attributes:
        installed: whether it can be started here.
        reason: why it cannot, for people; None when it can.
        version: of the engine's package or binary.
        routing: how its routing is obtained; None when it cannot be, and the uniform expectation stands in.
    """

    installed: bool
    reason: str | None
    version: str | None
    routing: RoutingSource | None


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """How an engine is started: everything that decides it, and nothing that is read from the machine later.

    Attributes:
        files: the model.
        precision: number format of the weights.
        options: what an in-process engine is told (device, threads, cache, kernels).
        argv: command of a server engine; empty for an in-process one.
        environment: variables that the server gets on top of a clean environment.
        ready_url: answered with 200 once the server takes requests.
        start_limit_s: bounded start.
    """

    files: ModelFiles
    precision: str
    options: Mapping[str, JsonValue] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_url: str | None = None
    start_limit_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how many tokens it is answered with; the end-of-sequence token does not end it."""

    id: str
    prompt: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Untold:
    """An answer whose server does not tell which tokens it was.

    Attributes:
        text: as it came.
        num_tokens: as the server counted them.
    """

    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """One answered request on the client's monotonic clock, seconds.

    Attributes:
        tokens: ids of the answer; () where only `untold` is known.
        token_s: arrival of each output token; of each piece, where the server does not tell how many tokens it held.
        intended_s: when the schedule of an open loop wanted it sent.
        error: what went wrong; the tokens that came before it stay.
        cached_tokens: of the prompt, which the server says it had computed before; None where it does not tell.
    """

    request_id: str
    tokens: tuple[int, ...]
    sent_s: float
    token_s: tuple[float, ...]
    ended_s: float
    error: str | None = None
    intended_s: float | None = None
    untold: Untold | None = None
    cached_tokens: int | None = None

    @property
    def num_tokens(self) -> int:
        """Of the answer."""
        return len(self.tokens) if self.untold is None else self.untold.num_tokens

    def text(self, tokenizer: Tokenizer) -> str:
        """The answer, special tokens left out."""
        return tokenizer.decode(self.tokens) if self.untold is None else self.untold.text


@dataclass(frozen=True, slots=True)
class Member:
    """One sequence's share of a step: `num_tokens` tokens from position `first_position` on."""

    request_id: str
    first_position: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One forward pass as the engine ran it: who was in it and how long it took, seconds of wall time."""

    kind: StepKind
    step_s: float
    members: tuple[Member, ...]
    logit_rows: int


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """How late and how busy the load client itself was; None where there were too few events.

    Attributes:
        lag_s_p99: 99th percentile of send minus intended send; of a closed loop, minus the end of the request before.
        beat_lag_s_p99: 99th percentile of how late its loop was, every 5 ms.
        busy_share: share of the time in which it was serving sockets, 0..1.
    """

    lag_s_p99: float | None
    beat_lag_s_p99: float | None
    busy_share: float


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What one timed pass gave.

    Attributes:
        steps: the forward passes; () where they are not known.
        started_s, ended_s: bound it, on the same clock as the completions.
        no_steps_reason: why there are no steps; None where there are, or the engine never tells any.
        client: of the load client; None for an engine that runs in this process.
        events: all that the client knows of each request, in the order of the completions; () as `client`.
    """

    completions: tuple[Completion, ...]
    steps: tuple[EngineStep, ...]
    started_s: float
    ended_s: float
    no_steps_reason: str | None = None
    client: ClientLoad | None = None
    events: tuple[Mapping[str, JsonValue], ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingRows:
    """Where the tokens of one request were sent.

    Attributes:
        experts: ids of the routed experts [positions, MoE layers, top_k]; row i is the token at position i. The last
            output token has no row: nothing was computed from it.
        predicted: greedy token after the prompt and after each output token but the last [output tokens], as this
            pass computed it; where it differs from the timed pass, the two did not agree.
    """

    request_id: str
    experts: NDArray[np.int16]
    predicted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a harness wants scored: log-probability of `continuation` after `context`, both as token ids."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """Natural log of the probability of a continuation, and whether greedy decoding would have produced it."""

    log_probability: float
    is_greedy: bool


class Tokenizer(Protocol):
    """Text to tokens and back, as the model was trained."""

    @property
    def name(self) -> str:
        """Names the vocabulary."""

    @property
    def end_token(self) -> int:
        """Ends a text."""

    @property
    def prefix_token(self) -> int:
        """Stands before a text that has no context: beginning-of-sequence where there is one."""

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        """Token ids; None leaves it to the tokenizer's own rule whether special tokens are added."""

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        """Text of token ids, special tokens left out unless asked for."""


class Session(Protocol):
    """A running engine that holds one model."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""

    @property
    def max_tokens(self) -> int:
        """Longest sequence that the model takes."""

    def describe(self) -> EngineRecord:
        """Version and effective arguments as read back from the engine, not as they were asked for."""

    def storage(self, architecture: Architecture) -> StoragePlan:
        """How exactly the weights and the cache are stored, for the byte accounts."""

    def weights_bytes(self) -> float | None:
        """Bytes of all weights as they are stored for this run; None where neither the engine nor a file tells."""

    def warm_up(self, requests: Sequence[Request], concurrency: int) -> None:
        """Run requests of the load's shape, so that nothing is compiled or allocated in the timed pass."""

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """The timed pass, uninstrumented.

        Raises:
            MeasurementError: named by what happened; nothing half-measured is returned.
        """

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """Send the same tokens through once more and record where each went; () where this engine cannot tell.

        The requests are those that ran together in one batch.

        Raises:
            InvalidRunError: it can tell, and what it told is not whole.
        """

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """Score one batch."""

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """Continue one batch greedily until a stop text or the end token; the text before it."""

    def stop(self) -> None:
        """Leave nothing behind; may be called twice."""


class Engine(Protocol):
    """One way to serve a model."""

    @property
    def name(self) -> str:
        """As results carry it."""

    def probe(self) -> Capabilities:
        """What it could do here; never starts anything."""

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """How it would be started; starts nothing.

        Raises:
            SubmissionError: this engine does not have this precision.
        """

    def start(self, spec: LaunchSpec, log: Path) -> Session:
        """Start it and wait until it takes requests; what it says goes to `log`.

        Raises:
            EngineStartError: it did not come up.
            OutOfMemoryError: the model does not fit.
        """
