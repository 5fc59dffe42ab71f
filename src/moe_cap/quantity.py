"""A number with its unit, how it was come by, and, where it is missing, why.

`QUANTITIES` is the one list of the numbers that a result may hold: a record with another name or another unit is refused,
and the board, the pages and the docs read titles and directions from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

Better = Literal["higher", "lower", "neither"]
Group = Literal["latency", "throughput", "utilisation", "routing", "energy", "cost", "run", "client"]


class Quantity(BaseModel):
    """One published number.

    Attributes:
        value: in `unit`, not rounded; None when it is not known.
        unit: SI unit or ratio ("1"), as in `QUANTITIES`.
        source: measured (a clock or counter), derived (a formula over measured values), estimated (a model, named in
            `note`), reported (somebody else's, cited by the result).
        reason: why the value is None; required then, absent otherwise.
        note: what a reader must know beside the number (which peak, which price, which interval).
        interval_95: half width of the 95 % confidence interval over repeats, in `unit`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    value: float | None
    unit: str
    source: Literal["measured", "derived", "estimated", "reported"]
    reason: str | None = None
    note: str | None = None
    interval_95: float | None = None

    @model_validator(mode="after")
    def _missing_has_a_reason(self) -> Quantity:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a quantity has either a value or the reason why it has none")
        return self


@dataclass(frozen=True, slots=True)
class QuantitySpec:
    """What a published number means: unit, direction, title for people and one sentence of definition."""

    name: str
    unit: str
    better: Better
    group: Group
    title: str
    meaning: str


def _latency(key: str, title: str, meaning: str) -> list[QuantitySpec]:
    statistics = {
        "mean": "mean", "std": "standard deviation", "p50": "median", "p90": "90th percentile",
        "p95": "95th percentile", "p99": "99th percentile",
    }  # fmt: skip
    return [
        QuantitySpec(
            f"{key}_{short}",
            "s",
            "lower",
            "latency",
            f"{title} {short}",
            f"{meaning}; {long} over the requests sent in the measured window (steady, or the whole run where none is).",
        )
        for short, long in statistics.items()
    ]


def _utilisation(phase: str) -> list[QuantitySpec]:
    kinds = {
        "s_mbu": (
            "S-MBU",
            "bytes that the step had to read (activated experts, all terms; what it writes is not in it), "
            "summed over the devices that read them, over time and peak bandwidth",
        ),
        "s_mbu_paper": (
            "S-MBU (paper)",
            "the same with the terms of equation 3 only: attention, activated, shared and dense experts, KV cache and "
            "recurrent state, each counted once",
        ),
        "mbu": ("MBU", "vanilla: as if every expert were read in every step"),
        "s_mfu": ("S-MFU", "FLOPs of the activated experts, all terms, over time and dense peak"),
        "s_mfu_paper": ("S-MFU (paper)", "the same without scores and logits, equation 4 to the letter"),
        "mfu": ("MFU", "vanilla: as if every expert computed every token"),
    }
    bases = {
        "": ("", "Against the datasheet peak, or the measured one where there is no datasheet (the note says which)."),
        "_of_measured_peak": (" of measured peak", "Against the peak that the probe measured on this machine."),
    }
    return [
        QuantitySpec(
            f"{phase}_{kind}{suffix}", "1", "higher" if kind.startswith("s_") else "neither", "utilisation",
            f"{phase.capitalize()} {title}{extra}", f"{meaning[0].upper()}{meaning[1:]}. {peak}",
        )
        for kind, (title, meaning) in kinds.items()
        for suffix, (extra, peak) in bases.items()
    ]  # fmt: skip


def _cost(basis: str, title: str) -> list[QuantitySpec]:
    return [
        QuantitySpec(f"usd_per_hour_{basis}", "USD/h", "lower", "cost", f"USD/h ({title})", "What an hour of the system costs."),
        QuantitySpec(f"usd_per_million_output_tokens_{basis}", "USD/Mtok", "lower", "cost", f"USD/Mtok out ({title})",
                     "Cost of a million output tokens at this load."),
        QuantitySpec(f"usd_per_million_tokens_{basis}", "USD/Mtok", "lower", "cost", f"USD/Mtok ({title})",
                     "Cost of a million tokens, input and output together, at this load."),
        QuantitySpec(f"output_tokens_per_usd_{basis}", "tok/USD", "higher", "cost", f"Tokens per USD ({title})",
                     "Output tokens that one dollar buys at this load."),
    ]  # fmt: skip


_SPECS = [
    *_latency("ttft_s", "TTFT", "First content token minus send, on the client's clock"),
    *_latency("tpot_s", "TPOT", "(end - first token) / (output tokens - 1)"),
    *_latency("itl_s", "ITL", "Gap between two arrivals of output that follow each other (tokens that came together are one)"),
    *_latency("e2e_s", "End to end", "Last token minus send"),
    *_latency("schedule_lag_s", "Schedule lag", "Actual send minus intended send (open loop)"),
    QuantitySpec("output_tokens_per_s", "tok/s", "higher", "throughput", "Output tok/s", "Output tokens per second of the measured window: steady, or the whole run where there is none (see the note)."),
    QuantitySpec("total_tokens_per_s", "tok/s", "higher", "throughput", "Total tok/s", "Input and output tokens per second of the same window."),
    QuantitySpec("requests_per_s", "1/s", "higher", "throughput", "Requests/s", "Requests completed per second of the same window."),
    QuantitySpec("goodput_requests_per_s", "1/s", "higher", "throughput", "Goodput", "Requests per second that met every service level objective."),
    QuantitySpec("prefill_tokens_per_s", "tok/s", "higher", "throughput", "Prefill tok/s", "Prompt tokens computed per second of prefill steps."),
    QuantitySpec("decode_tokens_per_s", "tok/s", "higher", "throughput", "Decode tok/s", "Tokens computed per second of decode steps."),
    *_utilisation("prefill"),
    *_utilisation("decode"),
    QuantitySpec("prefill_activated_experts", "experts", "neither", "routing", "Experts/layer (prefill)", "Distinct routed experts per MoE layer and prefill step, mean."),
    QuantitySpec("decode_activated_experts", "experts", "neither", "routing", "Experts/layer (decode)", "Distinct routed experts per MoE layer and decode step, mean."),
    QuantitySpec("decode_activated_share", "1", "neither", "routing", "Experts used (decode)", "Distinct routed experts per layer and decode step, over all of them."),
    QuantitySpec("routing_agreement", "1", "neither", "routing", "Routing agreement", "Share of tokens that the timing pass and the routing pass both produced at the same place."),
    QuantitySpec("decode_bytes_per_step", "B", "neither", "utilisation", "Bytes/decode step", "Bytes that a decode step has to read over all devices, mean."),
    QuantitySpec("decode_flops_per_step", "FLOP", "neither", "utilisation", "FLOPs/decode step", "FLOPs of a decode step, mean."),
    QuantitySpec("offload_bytes_per_step", "B", "neither", "utilisation", "Offloaded bytes/step", "Bytes that cross the host link in a decode step, mean."),
    QuantitySpec("power_w", "W", "lower", "energy", "Power", "Mean power over the timed window, devices and host where readable."),
    QuantitySpec("idle_power_w", "W", "lower", "energy", "Idle power", "Power before the run, same counters."),
    QuantitySpec("energy_j", "J", "lower", "energy", "Energy", "Energy over exactly the timed window."),
    QuantitySpec("j_per_output_token", "J/tok", "lower", "energy", "J/token", "Energy of the timed window over its output tokens."),
    QuantitySpec("output_tokens_per_kwh", "tok/kWh", "higher", "energy", "Tokens per kWh", "Output tokens that a kilowatt hour makes."),
    QuantitySpec("purchase_usd", "USD", "lower", "cost", "Purchase", "Price of the whole server: GPUs, CPUs, board, DRAM, SSD."),
    *_cost("paper", "paper"),
    *_cost("owner", "owner"),
    *_cost("rental", "rental"),
    QuantitySpec("failed_requests", "1", "lower", "run", "Failed requests", "Requests of the timed passes that did not complete."),
    QuantitySpec("mixed_steps", "1", "neither", "run", "Mixed steps", "Steps that held prefill and decode tokens; in neither figure."),
    QuantitySpec("client_lag_s_p99", "s", "lower", "client", "Client lag p99", "How late the load client sent: after its schedule, or, in a closed loop, after the end of the request before; 99th percentile, of the worst repetition."),
    QuantitySpec("client_beat_lag_s_p99", "s", "lower", "client", "Client loop lag p99", "How late the load client's own loop was, every 5 ms; 99th percentile, of the worst repetition."),
    QuantitySpec("client_busy_share", "1", "lower", "client", "Client busy", "Share of the time in which the load client was serving sockets, of the worst repetition: near 1 it limits the run."),
]  # fmt: skip

QUANTITIES: dict[str, QuantitySpec] = {spec.name: spec for spec in _SPECS}


def known(name: str, value: float, *, source: str = "measured", note: str | None = None) -> Quantity:
    """A number under its name's unit."""
    return Quantity.model_validate({"value": value, "unit": QUANTITIES[name].unit, "source": source, "note": note})


def unknown(name: str, reason: str, *, source: str = "measured") -> Quantity:
    """No number, and why."""
    return Quantity.model_validate({"value": None, "unit": QUANTITIES[name].unit, "source": source, "reason": reason})
