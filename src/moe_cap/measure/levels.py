"""The loads of a submission, one per point: closed loops of some concurrency, or open loops of some rate."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol, runtime_checkable

import numpy as np

from moe_cap.architecture import Architecture
from moe_cap.errors import LateClientError, SubmissionError
from moe_cap.measure.engines.base import EngineRun, Request, Session
from moe_cap.measure.level import TimedPass, time_level, time_pass, trace_repeats
from moe_cap.measure.load.schedule import OpenLoop, constant, gamma, poisson, replay
from moe_cap.measure.load.validity import is_degenerate
from moe_cap.measure.lock_step import REQUESTS_PER_LEVEL, requests_for
from moe_cap.measure.points import LevelResult
from moe_cap.measure.power import PowerMeter
from moe_cap.measure.progress import Progress, Report, by_percent
from moe_cap.measure.prompts import Prompts
from moe_cap.metrics.latency import Slo
from moe_cap.result import Load
from moe_cap.submission import Arrivals, Submission

log = logging.getLogger("moe_cap")

REFUSALS = 3
"""Passes of a level that may be refused for a late client before the level is given up."""
SECONDS_OF_ARRIVALS = 30
"""Of an open loop whose number of requests was left open, at least."""
SECONDS_PER_TOKEN = 0.1
"""Of its arrivals for each token of an answer: half of them are its steady part where a token takes up to 50 ms, which
is about as slow as anybody reads. The number has to follow from the submission alone, or no run could be repeated."""
TOGETHER = 8
"""Requests of an open loop that warm up, or are traced, at once: it has no concurrency of its own."""


@runtime_checkable
class OpenLoopSession(Protocol):
    """A session that can be sent requests by the clock: one behind a server."""

    def run_arrivals(self, requests: Sequence[Request], arrivals: OpenLoop) -> EngineRun:
        """The timed pass of an open loop; as `Session.run`."""


class Level(Protocol):
    """One load.

    Attributes:
        name: as it stands in the stages of a run.
        key: what its prompts are drawn by, beside the seed.
        number: requests of one repetition.
        together: requests that warm up, and are traced, at once.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102
    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def together(self) -> int: ...  # noqa: D102

    def time(self, session: Session, requests: Sequence[Request], meter: PowerMeter, report: Report) -> TimedPass:
        """The timed pass."""

    def told(self) -> Mapping[str, Any]:
        """What the result's `Load` says of it."""


@dataclass(frozen=True, slots=True)
class ClosedLevel:
    """So many requests in flight."""

    concurrency: int
    number: int

    @property
    def name(self) -> str:
        """As the stages call it."""
        return f"batch {self.concurrency}"

    @property
    def key(self) -> str:
        """Each concurrency has prompts of its own."""
        return str(self.concurrency)

    @property
    def together(self) -> int:
        """The concurrency itself."""
        return self.concurrency

    def time(self, session: Session, requests: Sequence[Request], meter: PowerMeter, report: Report) -> TimedPass:
        """A closed loop."""
        return time_level(session, requests, self.concurrency, meter, report)

    def told(self) -> Mapping[str, Any]:
        """Kind and concurrency."""
        return {"kind": "closed_loop", "concurrency": self.concurrency}


@dataclass(frozen=True, slots=True)
class OpenLevel:
    """One request at each of the loop's times; a trace was asked for at no rate."""

    process: str
    loop: OpenLoop
    asked_per_s: float | None

    @property
    def name(self) -> str:
        """As the stages call it."""
        rates = {"asked": self.asked_per_s, "drawn": self.loop.rate_per_s}
        return ", ".join([f"{self.process} arrivals", *(f"{rate:.3g}/s {how}" for how, rate in rates.items() if rate)])

    @property
    def key(self) -> str:
        """The first and the last arrival tell schedules apart."""
        return f"{self.process}-{self.loop.arrivals_s[-1]:.9g}"

    @property
    def number(self) -> int:
        """One for each arrival."""
        return len(self.loop.arrivals_s)

    @property
    def together(self) -> int:
        """A few."""
        return min(TOGETHER, self.number)

    def time(self, session: Session, requests: Sequence[Request], meter: PowerMeter, report: Report) -> TimedPass:
        """An open loop.

        Raises:
            SubmissionError: this engine runs whole batches.
        """
        if not isinstance(session, OpenLoopSession):
            raise SubmissionError(
                "this engine runs whole batches and has no clock to send by: ask for concurrency, or for a server",
                field="arrivals",
            )
        return time_pass(session, lambda: session.run_arrivals(requests, self.loop), requests, meter, report)

    def told(self) -> Mapping[str, Any]:
        """Kind and the rate that was really asked for, the mean over its arrivals."""
        return {"kind": "open_loop", "request_rate_per_s": self.loop.rate_per_s}


def levels_of(asked: Submission) -> tuple[Level, ...]:
    """Every load of a submission, in order."""
    if asked.arrivals is None:
        return tuple(ClosedLevel(level, requests_for(level, asked.num_requests)) for level in asked.concurrency)
    loops = zip(open_loops(asked.arrivals, asked), asked.arrivals.rates_per_s or (None,), strict=True)
    return tuple(OpenLevel(asked.arrivals.process, loop, rate) for loop, rate in loops)


def open_loops(arrivals: Arrivals, asked: Submission) -> tuple[OpenLoop, ...]:
    """A schedule for each rate, drawn from the submission's seed; or the trace."""
    draw: dict[str, Callable[[float, int], OpenLoop]] = {
        "constant": constant,
        "poisson": lambda rate, count: poisson(rate, count, np.random.default_rng(asked.seed)),
        "gamma": lambda rate, count: gamma(rate, arrivals.burstiness, count, np.random.default_rng(asked.seed)),
    }
    if arrivals.process not in draw:
        return (replay(arrivals.times_s),)
    seconds = seconds_of_arrivals(asked)
    return tuple(
        draw[arrivals.process](rate, asked.num_requests or max(REQUESTS_PER_LEVEL, ceil(rate * seconds)))
        for rate in arrivals.rates_per_s
    )


def seconds_of_arrivals(asked: Submission) -> float:
    """How long requests are sent where their number was left open; by what is asked for, for answers of one length."""
    told = asked.output_tokens if asked.lengths is None else 0
    return max(SECONDS_OF_ARRIVALS, SECONDS_PER_TOKEN * told)


@dataclass(frozen=True, slots=True)
class TimedLevel:
    """A level before its tokens were traced.

    Attributes:
        refusals: why passes were not believed and carried again.
    """

    level: Level
    passes: tuple[TimedPass, ...]
    refusals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Carrier:
    """What every level of a run is measured with.

    All levels are timed before the first is traced: a server that records is another start of it.
    """

    asked: Submission
    session: Session
    architecture: Architecture
    prompts: Prompts
    meter: PowerMeter
    progress: Progress

    def time(self, level: Level) -> TimedLevel:
        """Warm up and time every repetition.

        Raises:
            MeasurementError: it could not be measured this time.
        """
        self.progress.enter(f"warm-up {level.name}")
        self.session.warm_up(self.prompts.draw(f"warm-{level.key}", level.together), level.together)
        passes: list[TimedPass] = []
        refusals: list[str] = []
        for repeat in range(self.asked.repeats):
            self.progress.enter(timing_stage(level, repeat, self.asked.repeats))
            passes.append(self._believed(level, repeat, refusals))
        return TimedLevel(level, tuple(passes), tuple(refusals))

    def _believed(self, level: Level, repeat: int, refusals: list[str]) -> TimedPass:
        """A pass whose client kept up. One that did not says nothing of the server, for better or worse."""
        while True:
            requests = self.prompts.draw(f"level-{level.key}", level.number, attempt=repeat + len(refusals))
            try:
                return level.time(self.session, requests, self.meter, by_percent(self.progress.within))
            except LateClientError as error:
                if len(refusals) == REFUSALS:
                    raise
                refusals.append(str(error))
                log.warning("%s: carried again", error)

    def trace(self, timed: TimedLevel) -> LevelResult:
        """Learn where the tokens of a timed level went.

        Raises:
            MeasurementError: what was recorded cannot be believed.
        """
        level, passes = timed.level, timed.passes
        self.progress.enter(f"routing {level.name}")
        report = self.progress.within
        traces = trace_repeats(self.session, passes, level.together, self.architecture, report)
        load = Load(
            **level.told(),
            **self.prompts.told(),
            batch_size=max((len(step.members) for step in passes[0].run.steps), default=None),
            num_requests=level.number,
        )
        answers = [completion for each in passes for completion in each.run.completions if completion.error is None]
        degenerate = sum(is_degenerate(answer.text(self.session.tokenizer)) for answer in answers)
        objectives = self.asked.objectives
        slo = Slo(**objectives.model_dump()) if objectives else None
        return LevelResult(load, passes, tuple(traces), degenerate, slo, timed.refusals)


def timing_stage(level: Level, repeat: int, repeats: int) -> str:
    """The name of one timed repetition."""
    return f"timing {level.name} ({repeat + 1}/{repeats})"


def stage_weights(asked: Submission) -> dict[str, float]:
    """Rough seconds of each stage of a small model; only their ratios matter."""
    weights = {
        "looking at the model": 1.0,
        "reading idle power": 1.0,
        "loading": 3.0,
        "probing the machine": 3.0,
        "writing": 1.0,
    }
    routing: dict[str, float] = {}
    for level in levels_of(asked):
        batch_s = (asked.input_tokens * level.together / 2000 + asked.output_tokens * (1 + level.together / 16)) / 100
        number = level.number // level.together
        weights[f"warm-up {level.name}"] = batch_s
        weights |= {timing_stage(level, repeat, asked.repeats): number * batch_s for repeat in range(asked.repeats)}
        routing[f"routing {level.name}"] = 1.5 * number * batch_s
    accuracy = {f"accuracy {task}": 0.03 * (asked.accuracy_limit or 300) for task in asked.tasks}
    return weights | accuracy | routing
