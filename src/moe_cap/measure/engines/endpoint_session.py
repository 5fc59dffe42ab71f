"""A server that answers: its load is carried from outside, its routing replayed on the same tokens.

Whose server it is makes no difference here: somebody else's (`moe_cap.measure.engines.endpoint`), or one that was
started for this (`moe_cap.measure.engines.launched`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import InvalidRunError, ServerError
from moe_cap.measure.engines.attendance import Attendance
from moe_cap.measure.engines.base import (
    Completion,
    Continuation,
    EngineRun,
    LaunchSpec,
    Request,
    RoutingRows,
    Score,
    Session,
    Tokenizer,
    Untold,
)
from moe_cap.measure.engines.client_record import client_load, kept_events
from moe_cap.measure.engines.dialect import UNTIMED, Dialect
from moe_cap.measure.engines.fingerprints import About
from moe_cap.measure.engines.openai_http import OpenAiHttp, ServedModel
from moe_cap.measure.engines.replay import replay_precision, start_replayer
from moe_cap.measure.engines.watched import Watching, watch
from moe_cap.measure.load import (
    ClosedLoop,
    FailureKind,
    Limits,
    LoadPlan,
    LoadRun,
    OpenLoop,
    Prompt,
    RequestEvents,
    Rules,
    Target,
    run_load,
)
from moe_cap.measure.lock_step import route_alike
from moe_cap.metrics.parallelism import SINGLE_DEVICE
from moe_cap.precision import StoragePlan, read_checkpoint, read_quantization, storage_of
from moe_cap.result import EngineRecord

SCORES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Attachment:
    """A server that answers, and how it is spoken to.

    Attributes:
        limits: how long it may be silent, and take.
        rules: what is believed of a timed pass.
        num_devices: on how many it is said to run.
    """

    http: OpenAiHttp
    about: About
    served: ServedModel
    tokenizer: Tokenizer
    target: Target
    dialect: Dialect
    limits: Limits
    rules: Rules
    num_devices: int = 1


class EndpointSession:
    """A server that answers, whoever started it; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, spec: LaunchSpec, log: Path, attachment: Attachment) -> None:
        self._spec = spec
        self._log = log
        self._http = attachment.http
        self._introduction = attachment.about
        self._served = attachment.served
        self._tokenizer = attachment.tokenizer
        self._target = attachment.target
        self._dialect = attachment.dialect
        self._limits = attachment.limits
        rules = attachment.rules
        self._rules = replace(rules, max_degenerate_share=1.0) if spec.files.random_weights else rules
        self._num_devices = attachment.num_devices
        self._replayer: Session | None = None
        self._attendance = Attendance()

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self._tokenizer

    @property
    def max_tokens(self) -> int:
        """As the server tells, else as the configuration does; 2048 where both are silent, as lm-eval assumes."""
        config = self._spec.files.config
        return int(self._served.max_tokens or config.get("max_position_embeddings") or 2048)

    def describe(self) -> EngineRecord:
        """What the server says about itself, one device where it does not say; the precision is what we were told."""
        about = self._introduction
        spread = about.parallel or SINGLE_DEVICE
        arguments: dict[str, JsonValue] = {"served_model": self._served.name, "client_dialect": self._dialect.name}
        arguments["routing_pass"] = self._routed_by() if self.routes else None
        return EngineRecord(
            name=about.name or "endpoint",
            version=about.version,
            arguments={**about.arguments, **arguments},
            weights_dtype=self._spec.precision,
            kv_dtype=about.kv_dtype,
            compute_dtype=about.compute_dtype,
            tensor_parallel=spread.tp,
            expert_parallel=spread.ep,
            data_parallel=spread.dp,
            pipeline_parallel=spread.pp,
        )

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As the checkpoint is stored where it is quantised, else as we were told; the cache as the server says."""
        stored = read_quantization(self._spec.files.folder, self._spec.files.config)
        plan = stored if stored.rules else storage_of(architecture, self._spec.precision)
        cache = self._introduction.kv_dtype
        return plan if cache is None else plan.with_kv(cache)

    def weights_bytes(self) -> float | None:
        """Of the files, where they are here and stored as we were told: the server does not tell how it keeps them."""
        files = self._spec.files
        if not files.weights or read_quantization(files.folder, files.config).name != self._spec.precision:
            return None
        return float(read_checkpoint(files.folder).num_bytes)

    def warm_up(self, requests: Sequence[Request], concurrency: int) -> None:
        """Requests of the load's shape."""
        self.load(requests, min(concurrency, len(requests)))

    def load(self, requests: Sequence[Request], concurrency: int) -> LoadRun:
        """Carry requests in a closed loop and keep everything that happened, valid or not.

        Raises:
            ServerError: more requests failed than the rules bear.
        """
        return self._load(requests, ClosedLoop(concurrency))

    def _load(self, requests: Sequence[Request], arrivals: ClosedLoop | OpenLoop) -> LoadRun:
        prompts, attendance = [self._prompt_of(request) for request in requests], self._attendance
        plan = LoadPlan(self._target, prompts, arrivals, limits=self._limits, rules=self._rules)
        return run_load(plan, lambda done, total: attendance.report(done / total), attendance.window)

    @contextmanager
    def attended(self, attendance: Attendance) -> Iterator[None]:
        """See `moe_cap.measure.engines.attendance.AttendedSession`."""
        self._attendance = attendance
        try:
            yield
        finally:
            self._attendance = Attendance()

    def _prompt_of(self, request: Request) -> Prompt:
        return Prompt(request.prompt, request.output_tokens, len(request.prompt))

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """The timed pass: a closed loop, from outside."""
        watched = self.watch()
        return self._engine_run(requests, self.load(requests, concurrency), watched)

    def run_arrivals(self, requests: Sequence[Request], arrivals: OpenLoop) -> EngineRun:
        """The timed pass of an open loop; see `moe_cap.measure.levels.OpenLoopSession`."""
        watched = self.watch()
        return self._engine_run(requests, self._load(requests, arrivals), watched)

    def watch(self) -> Watching:
        """Begin to watch the server's passes; what our own server does, its engine knows."""
        about = self._introduction
        return watch(about.name, self._http, may_be_stages=about.parallel is None and self._num_devices > 1)

    def _engine_run(self, requests: Sequence[Request], run: LoadRun, watched: Watching) -> EngineRun:
        run.require_valid()
        completions = tuple(
            self._completion(request, events, run) for request, events in zip(requests, run.requests, strict=True)
        )
        ended_s = max(completion.ended_s for completion in completions)
        chunks = sum(len(events.chunk_s) for events in run.requests)
        steps, reason = watched.steps(requests, completions, chunks)
        return EngineRun(completions, steps, run.started_s, ended_s, reason, client_load(run), kept_events(run))

    def _completion(self, request: Request, events: RequestEvents, run: LoadRun) -> Completion:
        started_s = run.started_s
        tokens = self._tokens(request, events)
        return Completion(
            request_id=request.id,
            tokens=tokens or (),
            sent_s=started_s + events.sent_s,
            token_s=tuple(started_s + at_s for at_s in events.token_s),
            ended_s=started_s + events.ended_s,
            error=None if events.failure is None else str(events.failure),
            intended_s=started_s + events.intended_s if run.arrivals.concurrency is None else None,
            untold=Untold(events.text, events.output_tokens) if tokens is None else None,
            cached_tokens=None if events.usage is None else events.usage.cached_tokens,
        )

    @property
    def routes(self) -> bool:
        """Whether a second pass is going to need the very tokens of the first; see `route`."""
        files = self._spec.files
        if not files.weights:
            return False
        architecture = parse_config(files.config)
        stored = read_quantization(files.folder, files.config)
        packed = not stored.rules and bool(self.storage(architecture).rules)
        return bool(architecture.moe_blocks) and not packed

    def _tokens(self, request: Request, events: RequestEvents) -> tuple[int, ...] | None:
        """The answer's ids as told, or the text's own where they are needed; None where nobody knows or asks.

        Raises:
            InvalidRunError: they are needed, and the text is not of as many tokens as the server counted and timed.
        """
        if events.token_ids is not None or events.failure is not None or not self.routes:
            return events.token_ids
        tokens = tuple(self._tokenizer.encode(events.text, special_tokens=False))
        if not len(tokens) == len(events.token_s) == events.output_tokens:
            raise InvalidRunError(
                f"request {request.id}: {events.output_tokens} tokens came in {len(events.chunk_s)} chunks, as text of "
                f"{len(tokens)}: the server does not tell which tokens they were, so no routing can be replayed"
            )
        return tokens

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through the transformers engine, from the same files, on this machine.

        () without weights here, and where the server packed them itself: transformers would route by other numbers.
        """
        if not self.routes:
            return ()
        if self._replayer is None:
            files, forbidden = self._spec.files, self._forbidden_tokens()
            self._replayer = start_replayer(files, self._spec.precision, forbidden, self._log)
        return route_alike(self._replayer, requests, completions)

    def _routed_by(self) -> str:
        """For the record."""
        return f"transformers, in {replay_precision(self._spec.files, self._spec.precision)}"

    def _forbidden_tokens(self) -> tuple[int, ...]:
        """What a timed answer may not say here; a replay has to predict under the same ban."""
        return ()

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """By echoed log-probabilities, several at once."""
        with ThreadPoolExecutor(SCORES_AT_ONCE) as pool:
            return list(pool.map(lambda one: self._http.score(self._served.name, one), continuations))

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy, until a stop text or the end token, all at once."""
        return self._answers([Prompt(tuple(prompt), max_tokens) for prompt in prompts], {"stop": list(stop)})

    def _answers(self, asked: Sequence[Prompt], extra: Mapping[str, JsonValue]) -> list[str]:
        target = replace(self._target, ignore_eos=False, extra={**self._target.extra, **extra})
        run = run_load(LoadPlan(target, asked, ClosedLoop(len(asked)), limits=self._limits, rules=UNTIMED))
        for request in run.failed:
            if request.failure is not None and request.failure.kind is not FailureKind.EMPTY:
                raise ServerError(f"{self._target.url}: an answer for the accuracy harness failed: {request.failure}")
        return [request.text for request in run.requests]

    def stop(self) -> None:
        """Leave the server alone, and end what was started here."""
        if self._replayer is not None:
            self._replayer.stop()
            self._replayer = None
