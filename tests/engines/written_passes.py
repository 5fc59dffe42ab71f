"""Servers that write down every pass while they are timed: what the passes read off their arrivals are held against."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_cap.architecture import parse_config
from moe_cap.measure.engines import llama_cpp, vllm
from moe_cap.measure.engines.base import EngineRun, Request
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.llama_trace import parse_trace as parse_llama_trace
from moe_cap.measure.engines.vllm_routing import parse_trace as parse_vllm_trace
from moe_cap.measure.model_files import ModelFiles
from tests.engines.recorded_runs import Composition, composition, compositions, whole

Read = Callable[[Iterable[str]], list[Composition]]

TRIES = 12
"""On a busy machine runs are refused, and rightly: those of several users nearly always, those of one seldom."""


@dataclass(frozen=True)
class WritingServer:
    """A server that was started with its recorder, and how its trace is read."""

    session: ServerSession
    trace: str
    read: Read

    def carry(self, requests: Sequence[Request], concurrency: int) -> tuple[EngineRun, list[Composition]]:
        """A closed loop; the passes that were read off it stand in the run, those that were written down beside."""
        self.session.warm_up(requests[:concurrency], concurrency)
        path = Path(self.session.server.fill(self.trace))
        with path.open(encoding="utf-8") as trace:
            trace.read()
            run = self.session.run(requests, concurrency)
            return run, self.read(trace)


def of_vllm(session: ServerSession) -> WritingServer:
    return WritingServer(
        session, vllm.TRACE, lambda lines: [composition(one.members) for one in parse_vllm_trace(lines)]
    )


def of_llama_cpp(session: ServerSession, files: ModelFiles) -> WritingServer:
    """A slot's tokens of one pass are one member: positions follow each other."""
    layers = parse_config(files.config).moe_layers

    def read(lines: Iterable[str]) -> list[Composition]:
        return [_of_slots(one.sequences, one.positions) for one in parse_llama_trace(lines, layers)]

    return WritingServer(session, llama_cpp.TRACE, read)


def _of_slots(slots: Sequence[int], positions: Sequence[int]) -> Composition:
    ordered = sorted(zip(slots, positions, strict=True))
    groups = [[position for _, position in group] for _, group in itertools.groupby(ordered, key=lambda pair: pair[0])]
    assert all(group == list(range(group[0], group[0] + len(group))) for group in groups)
    return sorted([group[0], len(group)] for group in groups)


def carry_truthfully(
    server: WritingServer, requests: Sequence[Request], concurrency: int
) -> tuple[EngineRun, list[Composition]]:
    """One run, whose arrivals told nothing or the truth."""
    run, written = server.carry(requests, concurrency)
    assert whole(written, requests)
    assert compositions(run.steps) in ([], written)
    return run, written


def told_at_last(
    server: WritingServer, requests: Sequence[Request], concurrency: int
) -> tuple[EngineRun, list[Composition]]:
    """The first run whose arrivals told its passes."""
    for _ in range(TRIES):
        run, written = carry_truthfully(server, requests, concurrency)
        if run.steps:
            return run, written
    raise AssertionError(f"{TRIES} runs with {concurrency} in flight told no passes")
