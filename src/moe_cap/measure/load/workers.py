"""Several processes when one core is not enough; CLOCK_MONOTONIC is one clock for all of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from time import monotonic_ns

from moe_cap.errors import MeasurementError
from moe_cap.measure.load.drive import Around, Driven, Progress, Share, drive
from moe_cap.measure.load.schedule import Arrivals

HEAD_START_NS = 20_000_000
"""From telling the workers to the first request: they have to hear of it before."""


def split_share(whole: Share, workers: int) -> tuple[Share, ...]:
    """Deal orders, and with them arrival times or concurrency, evenly over `workers`.

    Raises:
        InvalidInputError: a worker would have nothing to do.
    """
    parts: Sequence[Arrivals] = whole.arrivals.split(workers)
    return tuple(
        replace(whole, orders=whole.orders[worker::workers], arrivals=part) for worker, part in enumerate(parts)
    )


def drive_all(
    shares: Sequence[Share], progress: Progress, around: Around = nullcontext
) -> tuple[int, tuple[Driven, ...]]:
    """Drive every share, the first `monotonic_ns` of the run and what each gave.

    One share is driven in this thread; several in a process each, and `around` holds their head start and the reading
    of their last answers too.
    """
    if len(shares) == 1:
        driven = drive(shares[0], monotonic_ns, progress, around)
        return driven.started_ns, (driven,)
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for share in shares:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(share, there), daemon=True)
        process.start()
        there.close()
        pipes.append(here)
        processes.append(process)
    try:
        for pipe in pipes:
            _receive(pipe)
        with around():
            started_ns = monotonic_ns() + HEAD_START_NS
            for pipe in pipes:
                pipe.send(started_ns)
            return started_ns, _gather(pipes, sum(len(share.orders) for share in shares), progress)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _gather(pipes: Sequence[Connection], total: int, progress: Progress) -> tuple[Driven, ...]:
    """Results in the order of the shares; after one that was given up the others are not waited for."""
    driven: dict[int, Driven] = {}
    while len(driven) < len(pipes):
        waiting = {pipe: index for index, pipe in enumerate(pipes) if index not in driven}
        for ready in wait(list(waiting)):
            index = next(index for pipe, index in waiting.items() if pipe is ready)
            driven[index] = _driven(_receive(pipes[index]))
            progress(sum(len(part.requests) for part in driven.values()), total)
        if any(part.given_up is not None for part in driven.values()):
            break
    return tuple(driven[index] for index in sorted(driven))


def _driven(message: object) -> Driven:
    if not isinstance(message, Driven):
        raise MeasurementError(f"a load worker answered {message!r}")
    return message


def _receive(pipe: Connection) -> object:
    try:
        message: object = pipe.recv()
    except EOFError as error:
        raise MeasurementError("a load worker died") from error
    return message


def _work(share: Share, pipe: Connection) -> None:
    pipe.send("ready")
    started_ns = pipe.recv()
    pipe.send(drive(share, lambda: started_ns, lambda _done, _total: None))
    pipe.close()
