"""What the load client knows of a run beyond the completions: how busy it was, and every event of its requests."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import JsonValue

from moe_cap.measure.engines.base import ClientLoad
from moe_cap.measure.load import LoadRun
from moe_cap.metrics.latency import summary


def client_load(run: LoadRun) -> ClientLoad:
    """The figures that a late client is judged by; those of the worst worker, as the judgement takes them."""
    lag = summary(request.lag_s for request in run.requests)
    beats = [found.p99 for each in run.saturation if (found := summary(each.beat_lag_s))]
    return ClientLoad(
        lag_s_p99=lag.p99 if lag else None,
        beat_lag_s_p99=max(beats, default=None),
        busy_share=max(each.busy_share for each in run.saturation),
    )


def kept_events(run: LoadRun) -> tuple[dict[str, JsonValue], ...]:
    """`RequestEvents` of every request, in the order of the plan, seconds since the start of the run."""
    return tuple(asdict(request) for request in run.requests)
