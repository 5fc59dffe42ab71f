"""One engine at one batch size: our side of the comparison, the bare side on the same session, the routing pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.overhead_bare import GenerateLoop, RawClient
from benchmarks.overhead_figures import (
    Block,
    Pass,
    Ratio,
    RoutingCost,
    believed,
    carry_blocks,
    median_of,
    quiet_ratio_of,
    ratio_of,
)
from moe_cap.architecture import parse_config
from moe_cap.measure.engines.base import LaunchSpec, Request, Session
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.transformers_session import TransformersSession
from moe_cap.measure.level import time_level, trace_level
from moe_cap.measure.power import PowerMeter
from moe_cap.routing import RoutingSource

ROUTED_AGAIN = 5
"""Routing passes after the first, which may hold a start."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was found; `client_tokens` is None where the engine computes in this process, else the tokens of a pass."""

    engine: str
    version: str | None
    batch: int
    blocks: tuple[Block, ...]
    refused: int
    routing: RoutingCost | None
    client_tokens: int | None = None

    @property
    def tpot(self) -> Ratio:
        """Ours over bare, time per output token: what the limit is about."""
        return ratio_of(self.blocks, lambda each: each.tpot_s)

    @property
    def quiet_tpot(self) -> Ratio:
        """The same, of the passes that little else disturbed."""
        return quiet_ratio_of(self.blocks, lambda each: each.tpot_s)

    @property
    def wall(self) -> Ratio:
        """Ours over bare, the whole pass: with prefill, and with what is done before and after the tokens."""
        return ratio_of(self.blocks, lambda each: each.wall_s)

    @property
    def client_s_per_token(self) -> tuple[float, float] | None:
        """Processor time of the clients, bare and ours, for each token: the most that they can take from the server."""
        if (tokens := self.client_tokens) is None:
            return None
        bare_s, ours_s = (median_of(self.blocks, side, lambda each: each.cpu_s) for side in ("bare", "ours"))
        return bare_s / tokens, ours_s / tokens

    @property
    def agreeing(self) -> float:
        """Share of the answers that both sides gave."""
        return statistics.fmean(block.agreeing for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Level:
    """One load on a running engine."""

    session: Session
    spec: LaunchSpec
    requests: tuple[Request, ...]
    batch: int
    meter: PowerMeter

    def measure(self, rounds: int, how: RoutingSource | None) -> Row:
        """Warm both sides up, let them take turns, then price the routing pass.

        Args:
            rounds: blocks.
            how: the engine learns where its tokens went.

        Raises:
            MeasurementError: it could not be measured.
        """
        record, driver = self.session.describe(), driver_of(self.session, self.spec)

        def bare() -> Pass:
            return driver.carry(self.requests, self.batch)

        self.warm_up()
        bare()
        blocks, refused = carry_blocks(bare, self.ours, rounds)
        routing = self.routing(how, [each.wall_s for block in blocks for each in block.ours])
        tokens = sum(request.output_tokens for request in self.requests) if self._served else None
        return Row(record.name, record.version, self.batch, tuple(blocks), refused, routing, tokens)

    def ours(self) -> Pass:
        """The timed pass as the pipeline runs it."""
        started_s, busy_s = time.perf_counter(), time.process_time()
        run = time_level(self.session, self.requests, self.batch, self.meter).run
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - busy_s
        tpot_s = [(done.token_s[-1] - done.token_s[0]) / (len(done.tokens) - 1) for done in run.completions]
        said: Callable[[Sequence[int]], tuple[int, ...] | str] = (
            self.session.tokenizer.decode if self._served else tuple
        )
        return Pass(statistics.fmean(tpot_s), wall_s, cpu_s, tuple(said(done.tokens) for done in run.completions))

    def routing(self, how: RoutingSource | None, timing_s: Sequence[float]) -> RoutingCost | None:
        """The price of one level's routing pass; None where the engine, or a dense model, has none.

        Args:
            how: as in `measure`.
            timing_s: of the timing passes so far; new ones are taken in between where the engine allows it.
        """
        architecture = parse_config(self.spec.files.config)
        if how is None or not architecture.moe_blocks:
            return None
        run = believed(lambda: time_level(self.session, self.requests, self.batch, self.meter)).run

        def trace() -> None:
            trace_level(self.session, self.requests, run.completions, self.batch, architecture, lambda _share: None)

        warm_s = seconds(self.warm_up) if self._served else 0.0
        first_s = seconds(trace)
        again_s, between_s = [], []
        for _ in range(ROUTED_AGAIN):
            if not self._served:  # a server would have to be started anew in between
                between_s.append(believed(self.ours).wall_s)
            again_s.append(seconds(trace))
        back_s = max(0.0, seconds(self.warm_up) - warm_s) if self._served else None
        steps = len(run.steps) if how is RoutingSource.LOCK_STEP else None
        return RoutingCost(tuple(between_s or timing_s), first_s, tuple(again_s), back_s, steps)

    def warm_up(self) -> None:
        """A batch of the load's own shape."""
        self.session.warm_up(self.requests, self.batch)

    @property
    def _served(self) -> bool:
        return isinstance(self.session, ServerSession)


def seconds(call: Callable[[], None]) -> float:
    """Wall time of a call."""
    started_s = time.perf_counter()
    call()
    return time.perf_counter() - started_s


def driver_of(session: Session, spec: LaunchSpec) -> GenerateLoop | RawClient:
    """Whoever drives the engine of this session bare.

    Raises:
        TypeError: nobody wrote how.
    """
    if isinstance(session, ServerSession):
        return RawClient(f"{session.server.url}/completions", spec.files.name)
    if isinstance(session, TransformersSession):
        cache = spec.options["cache_implementation"]
        return GenerateLoop(session.model, None if cache is None else str(cache), bool(spec.options["compile"]))
    raise TypeError(f"{type(session).__name__} has no bare side")
