"""From raw events and steps to the numbers of a point. Pure: the same events give the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from moe_cap.measure.engines.base import ClientLoad
from moe_cap.measure.step_quantities import Account, Values, of_kind, of_steps, step_rate
from moe_cap.metrics.latency import (
    RequestTiming,
    Slo,
    Window,
    WindowKind,
    confidence_interval_95,
    goodput_requests_per_s,
    measurement_window,
    summary,
    throughput,
)
from moe_cap.quantity import Quantity, known, unknown
from moe_cap.routing import Step, StepKind


@dataclass(frozen=True, slots=True)
class Repeat:
    """One timed repetition of a level: requests as the client saw them, steps as the engine ran them."""

    timings: tuple[RequestTiming, ...]
    steps: tuple[Step, ...]


def measured_quantities(
    repeats: Sequence[Repeat], concurrency: int | None, account: Account, slo: Slo | None = None
) -> Values:
    """Every latency, rate and utilisation of a level, with the interval over its repeats.

    Latencies are taken over the requests of all repeats that were sent in the windows, utilisations are ratios of sums
    over the steps of all repeats, rates are means over the repeats, whose windows lie apart.
    """
    pooled = Repeat(
        tuple(timing for repeat in repeats for timing in repeat.timings),
        tuple(step for repeat in repeats for step in repeat.steps),
    )
    single = [_of_repeat(repeat, concurrency, account, slo) for repeat in repeats]
    rates = {name: _mean([values[name] for values in single]) for name in _rates(repeats[0], concurrency, account, slo)}
    sent = [timing for repeat in repeats for timing in sent_in_window(repeat.timings, concurrency)]
    together = {
        **latencies(sent, len(pooled.timings)),
        **rates,
        **of_steps(pooled.steps, account),
        **_run(pooled, account),
    }
    return {
        name: _with_interval(quantity, [values.get(name) for values in single]) for name, quantity in together.items()
    }


def _of_repeat(repeat: Repeat, concurrency: int | None, account: Account, slo: Slo | None) -> Values:
    sent = sent_in_window(repeat.timings, concurrency)
    rates = _rates(repeat, concurrency, account, slo)
    return {**latencies(sent, len(repeat.timings)), **rates, **of_steps(repeat.steps, account)}


def _mean(quantities: Sequence[Quantity]) -> Quantity:
    """Over the repetitions that have a value; the note says how many those are where not all do."""
    told = [quantity for quantity in quantities if quantity.value is not None]
    if not told:
        return quantities[0]
    mean = told[0].model_copy(
        update={"value": fmean(quantity.value for quantity in told if quantity.value is not None)}
    )
    if len(told) == len(quantities):
        return mean
    notes = (mean.note, f"mean of {len(told)} of {len(quantities)} repetitions: the others have none")
    return mean.model_copy(update={"note": "; ".join(filter(None, notes))})


def _with_interval(quantity: Quantity, repeats: Sequence[Quantity | None]) -> Quantity:
    values = [repeat.value for repeat in repeats if repeat is not None and repeat.value is not None]
    interval = confidence_interval_95(values) if len(values) == len(repeats) else None
    return quantity if interval is None else quantity.model_copy(update={"interval_95": interval.half_width})


def sent_in_window(timings: Sequence[RequestTiming], concurrency: int | None) -> list[RequestTiming]:
    """The requests that were sent in the steady window, its last one included; all where there is none.

    Those that were sent while the load was still rising are left out. Those that ended after the window stay: leaving
    out whatever took long would flatter every percentile. The batches of a lock step start in the window, all of them.
    """
    window = measurement_window(timings, concurrency)
    return [timing for timing in timings if window.start_s <= timing.sent_s <= window.end_s]


def latencies(timings: Sequence[RequestTiming], out_of: int) -> Values:
    """Percentiles, mean and spread of every latency over the requests that completed.

    Args:
        timings: of the requests that were sent in the window.
        out_of: how many were sent in all.
    """
    done = [timing for timing in timings if timing.error is None]
    observed: dict[str, list[float | None]] = {
        "ttft_s": [timing.ttft_s for timing in done],
        "tpot_s": [timing.tpot_s for timing in done],
        "itl_s": [gap for timing in done for gap in timing.itl_s],
        "e2e_s": [timing.e2e_s for timing in done],
        "schedule_lag_s": [timing.schedule_lag_s for timing in timings],
    }
    quantities: Values = {}
    which = "all" if len(timings) == out_of else f"{len(timings)} of {out_of}"
    note = f"over {which} requests, sent in the measured window; {len(done)} completed"
    for key, values in observed.items():
        found = summary(values)
        for statistic in ("mean", "std", "p50", "p90", "p95", "p99"):
            name = f"{key}_{statistic}"
            value = getattr(found, statistic) if found else None
            told = note + _pieces(done) if key == "itl_s" else note
            quantities[name] = (
                known(name, value, note=told) if value is not None else unknown(name, _why_no(key, found is None))
            )
    return quantities


def _pieces(timings: Sequence[RequestTiming]) -> str:
    """What a reader must know of gaps where tokens came several at a time."""
    tokens = sum(timing.output_tokens for timing in timings)
    pieces = sum(len(timing.piece_s) for timing in timings)
    return f"; gaps are between pieces of {tokens / pieces:.3g} tokens on average" if 0 < pieces < tokens else ""


def _why_no(key: str, none_at_all: bool) -> str:
    if key == "schedule_lag_s":
        return "a closed loop has no schedule to lag behind"
    return "no request completed with enough tokens" if none_at_all else "a single value has no spread"


def _rates(repeat: Repeat, concurrency: int | None, account: Account, slo: Slo | None) -> Values:
    window = measurement_window(repeat.timings, concurrency)
    rate = throughput(repeat.timings, window)
    note = f"{window.kind.value} window of {window.length_s:.3g} s"
    return {
        "output_tokens_per_s": known("output_tokens_per_s", rate.output_tokens_per_s, note=note),
        "total_tokens_per_s": known("total_tokens_per_s", rate.total_tokens_per_s, note=note),
        "requests_per_s": known("requests_per_s", rate.requests_per_s, note=note),
        "goodput_requests_per_s": _goodput(repeat, window, slo),
        **{
            f"{kind.value}_tokens_per_s": step_rate(kind, repeat.steps, account.no_steps_reason)
            for kind in (StepKind.PREFILL, StepKind.DECODE)
        },
    }


def _goodput(repeat: Repeat, window: Window, slo: Slo | None) -> Quantity:
    name = "goodput_requests_per_s"
    if slo is None:
        return unknown(name, "the submission sets no service level objectives")
    return known(name, goodput_requests_per_s(repeat.timings, slo, window), note=str(slo))


def _run(pooled: Repeat, account: Account) -> Values:
    failed = sum(timing.error is not None for timing in pooled.timings)
    mixed = len(of_kind(pooled.steps, StepKind.MIXED))
    return {
        "failed_requests": known("failed_requests", failed),
        "mixed_steps": known("mixed_steps", mixed),
        "offload_bytes_per_step": unknown("offload_bytes_per_step", account.no_offload_reason),
    }


def client_quantities(clients: Sequence[ClientLoad | None]) -> Values:
    """How late and how busy the load client was in its worst repetition: what a repetition is believed by."""
    found = [client for client in clients if client is not None]
    observed: dict[str, list[float | None]] = {
        "client_lag_s_p99": [client.lag_s_p99 for client in found],
        "client_beat_lag_s_p99": [client.beat_lag_s_p99 for client in found],
        "client_busy_share": [client.busy_share for client in found],
    }
    why = "the run was over before the client's loop had a beat" if found else "the engine runs in this process"
    quantities: Values = {}
    for name, values in observed.items():
        worst = max((value for value in values if value is not None), default=None)
        quantities[name] = unknown(name, why) if worst is None else known(name, worst)
    return quantities


def never_steady(repeats: Sequence[Repeat], concurrency: int | None) -> tuple[str, ...]:
    """Why an open loop did not carry the rate that it is named by; () where it did, and for every closed loop."""
    if concurrency is not None:
        return ()
    windows = [measurement_window(repeat.timings, None) for repeat in repeats]
    short = sum(window.kind is WindowKind.WHOLE for window in windows)
    if not short:
        return ()
    answer_s = max((found.p90 for repeat in repeats if (found := summary(_answers_s(repeat)))), default=0.0)
    return (
        f"the open loop was never steady in {short} of {len(windows)} repetitions: answers took {answer_s:.3g} s (p90),"
        " and half of the requests have to be sent after so long: ask for more, that are sent for at least"
        f" {2 * answer_s:.3g} s",
    )


def _answers_s(repeat: Repeat) -> Iterator[float]:
    return (timing.e2e_s for timing in repeat.timings if timing.error is None)


def above_one(quantities: Mapping[str, Quantity]) -> tuple[str, ...]:
    """What breaks the rule that no share of a peak exceeds 1. The vanilla forms may: sparsity does that to them."""
    return tuple(
        f"{name} is {quantity.value:.3g}, above 1: a peak, a time or the count is wrong"
        for name, quantity in quantities.items()
        if ("_s_mbu" in name or "_s_mfu" in name) and quantity.value is not None and quantity.value > 1
    )
