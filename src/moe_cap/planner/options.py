"""Which devices, and how many of them, can do a decode target; with all weights resident, and with experts offloaded.

A step takes no less time than its bytes at the reachable bandwidth and its FLOPs at the reachable rate; communication
between devices is not counted. So what is found infeasible is infeasible, and what is feasible may need more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from moe_cap.architecture import Architecture
from moe_cap.errors import InvalidInputError, MissingPeakError, MissingPriceError
from moe_cap.hardware import CpuPart, Device, RentalBasis
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.metrics.footprint import footprint
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.metrics.purchase import DEVICES_PER_HOST, catalogue_server, hosts_of
from moe_cap.planner.demand import memory, planned_step
from moe_cap.precision import StoragePlan


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a plan takes for granted; published with it.

    Attributes:
        reachable_bandwidth: share of a peak bandwidth, of memory and of links, that kernels reach. 0.8 is the factor
            that ai-dynamo/aiconfigurator applies to every GPU but one; 1.0 plans against the datasheet.
        reachable_flops: share of the dense peak.
        usable_memory: share of a device's memory for weights and cache; 0.9 is vLLM's default.
        counts: numbers of devices that are tried, in this order.
        devices_per_host: devices that share one server, for its price and its memory's bandwidth.
        host: processor whose memory holds offloaded experts; None leaves its bandwidth out of account.
        sockets: processors of a server.
    """

    reachable_bandwidth: float = 0.8
    reachable_flops: float = 1.0
    usable_memory: float = 0.9
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    devices_per_host: int = DEVICES_PER_HOST
    host: CpuPart | None = None
    sockets: int = 2

    def __post_init__(self) -> None:
        for name in ("reachable_bandwidth", "reachable_flops", "usable_memory"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInputError(f"{name}: expected a share above 0 up to 1, not {getattr(self, name)!r}")
        if not self.counts or any(count < 1 for count in self.counts):
            raise InvalidInputError(f"counts: expected numbers of devices above 0, not {self.counts!r}")


class Limit(StrEnum):
    """What a plan comes nearest to running out of."""

    MEMORY = "memory"
    BANDWIDTH = "bandwidth"
    COMPUTE = "compute"
    LINK = "link"
    HOST_MEMORY_BANDWIDTH = "host_memory_bandwidth"


@dataclass(frozen=True, slots=True)
class Fit:
    """A number of devices that meets the target.

    Attributes:
        parallel: the layout that needs least time.
        step_s: lower bound of the step's time.
        tokens_per_s: upper bound of the rate, over the whole batch.
        used: share of each limit that is used up, at most 1 each.
        limit: the largest of them; memory only where nothing is offloaded.
        memory_bytes_per_device: weights and cache, offloaded experts left out.
        offloaded_bytes: expert weights that lie in host memory.
        offload_bytes_per_step: bytes expected to cross the host link in a step.
        power_w: devices at their thermal design power, without host; None when it is not published.
        all_in_power_w: with host and cooling, where somebody publishes it.
        purchase_usd: devices and hosts at the catalogue's indicative prices.
        rental_usd_per_hour: newest price by basis, all devices together.
        unknown: why a figure is None, by name.
    """

    count: int
    parallel: Parallelism
    step_s: float
    tokens_per_s: float
    used: Mapping[Limit, float]
    limit: Limit
    memory_bytes_per_device: float
    offloaded_bytes: float
    offload_bytes_per_step: float
    power_w: float | None
    all_in_power_w: float | None
    purchase_usd: float | None
    rental_usd_per_hour: Mapping[str, float]
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Option:
    """What a device can do: the fewest that meet the target with all weights in their memory, and with offloading."""

    device_id: str
    name: str
    device_class: str
    resident: Fit | None
    offloaded: Fit | None
    reason: str | None
    """Why not even offloading helps, or why the device was not tried."""


@dataclass(frozen=True, slots=True)
class _Load:
    """What one layout asks, whatever the device."""

    parallel: Parallelism
    held_bytes: float
    expert_bytes: float
    activated_expert_bytes: float
    read_bytes: float
    flops: float

    @property
    def count(self) -> int:
        """Devices of the layout."""
        return self.parallel.num_devices


@dataclass(frozen=True, slots=True)
class _Target:
    """What is asked of every device: the step in each layout, in the order in which they are tried, and its time."""

    loads: tuple[_Load, ...]
    compute_dtype: str
    batch: int
    tpot_s: float
    assumed: Assumptions


@dataclass(frozen=True, slots=True)
class _Choice:
    """A layout that meets the target: the share of each limit that it uses, and the expert bytes not resident."""

    load: _Load
    used: Mapping[Limit, float]
    away: float

    @property
    def step_share(self) -> float:
        """Share of the target's time that the step needs."""
        return max(share for limit, share in self.used.items() if limit is not Limit.MEMORY)


def feasible(
    devices: Iterable[Device], arch: Architecture, storage: StoragePlan, *, batch: int, context_tokens: int,
    tpot_s: float, zipf_exponent: float = 0.0, assumptions: Assumptions | None = None,
    source_tokens: int | None = None,
) -> tuple[Option, ...]:  # fmt: skip
    """For every device, the fewest that decode `batch` sequences at `context_tokens` within `tpot_s` per token.

    Raises:
        InvalidInputError: an argument is not positive.
    """
    assumed = assumptions or Assumptions()
    step = planned_step(
        arch, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s, zipf_exponent=zipf_exponent,
        source_tokens=source_tokens,
    )  # fmt: skip
    flops = step_flops(arch, step).total
    groups = footprint(arch, storage).experts
    experts = sum(len(group.rows) * group.moe.num_experts * group.expert_bytes for group in groups)

    def load(parallel: Parallelism) -> _Load:
        read = step_bytes(arch, step, storage, parallel)
        held = memory(
            arch, storage, batch=batch, context_tokens=context_tokens, parallel=parallel, source_tokens=source_tokens
        )
        return _Load(parallel, held.total_bytes, experts, read.experts, read.total_read, flops)

    is_moe = bool(arch.moe_blocks)
    loads = tuple(load(parallel) for count in assumed.counts for parallel in layouts(count, is_moe=is_moe))
    target = _Target(loads, storage.compute_dtype, batch, tpot_s, assumed)
    return tuple(_option(device, target) for device in devices)


def layouts(count: int, *, is_moe: bool) -> Iterator[Parallelism]:
    """Ways to spread a model over `count` devices that people serve with.

    Tensor parallel over all of them; and for a mixture on more than one, data-parallel attention with expert parallel
    MoE layers, one rank or eight to a group.
    """
    yield Parallelism(tp=count)
    if is_moe and count > 1:
        yield Parallelism(dp=count, ep=count)
        if count > 8 and count % 8 == 0:
            yield Parallelism(tp=8, dp=count // 8, ep=count)


def _option(device: Device, target: _Target) -> Option:
    def option(resident: Fit | None, offloaded: Fit | None, reason: str | None) -> Option:
        return Option(device.id, device.name, device.device_class.value, resident, offloaded, reason)

    if device.memory_bytes.value is None or device.peak_bytes_per_s.value is None:
        return option(None, None, "its memory or bandwidth is not known")
    try:
        peak_flops = device.peak_flops(target.compute_dtype)
    except MissingPeakError as error:
        return option(None, None, str(error))
    resident = _fewest(device, peak_flops, target, offload=False)
    offloaded = _fewest(device, peak_flops, target, offload=True)
    reason = None if resident or offloaded else f"{max(target.assumed.counts)} of them are not enough"
    return option(resident, offloaded, reason)


def _fewest(device: Device, peak_flops: float, target: _Target, *, offload: bool) -> Fit | None:
    """The fastest layout of the first number of devices that meets the target."""
    for _, loads in groupby(target.loads, key=lambda load: load.count):
        tried = [_choice(device, peak_flops, load, target, offload=offload) for load in loads]
        if found := [choice for choice in tried if choice is not None]:
            return _fit(device, min(found, key=lambda choice: choice.step_share), target)
    return None


def _choice(device: Device, peak_flops: float, load: _Load, target: _Target, *, offload: bool) -> _Choice | None:
    """What a layout uses of every limit; None: more than there is of one."""
    assumed, count, link = target.assumed, load.count, device.host_link_bytes_per_s.value
    capacity = count * (device.memory_bytes.value or 0.0) * assumed.usable_memory
    excess = max(load.held_bytes - capacity, 0.0)
    if excess and (not offload or link is None or excess > load.expert_bytes):
        return None
    budget_s = target.tpot_s * assumed.reachable_bandwidth
    used = {
        Limit.MEMORY: min(load.held_bytes / capacity, 1.0),
        Limit.BANDWIDTH: load.read_bytes / (count * (device.peak_bytes_per_s.value or 0.0) * budget_s),
        Limit.COMPUTE: load.flops / (count * peak_flops * assumed.reachable_flops * target.tpot_s),
    }
    if excess and link is not None:
        crossing = excess / load.expert_bytes * load.activated_expert_bytes
        used[Limit.LINK] = crossing / (count * link * budget_s)
        if assumed.host is not None and assumed.host.peak_bytes_per_s.value is not None:
            sockets = assumed.sockets * hosts_of(count, assumed.devices_per_host)
            used[Limit.HOST_MEMORY_BANDWIDTH] = crossing / (sockets * assumed.host.peak_bytes_per_s.value * budget_s)
    return None if max(used.values()) > 1 else _Choice(load, used, excess)


def _fit(device: Device, choice: _Choice, target: _Target) -> Fit:
    load, away, used = choice.load, choice.away, choice.used
    count, step_s = load.count, choice.step_share * target.tpot_s
    unknown: dict[str, str] = {}
    for name, cell in (("power_w", device.tdp_w), ("all_in_power_w", device.all_in_power_w)):
        if cell.value is None:
            unknown[name] = str(cell.note)
    try:
        purchase = catalogue_server(device, count, devices_per_host=target.assumed.devices_per_host)
        purchase_usd: float | None = purchase.usd
    except MissingPriceError as error:
        purchase_usd, unknown["purchase_usd"] = None, str(error)
    return Fit(
        count=count,
        parallel=load.parallel,
        step_s=step_s,
        tokens_per_s=target.batch / step_s,
        used=used,
        limit=max(used.keys() - {Limit.MEMORY} if away else used, key=used.__getitem__),
        memory_bytes_per_device=(load.held_bytes - away) / count,
        offloaded_bytes=away,
        offload_bytes_per_step=away / load.expert_bytes * load.activated_expert_bytes if away else 0.0,
        power_w=None if device.tdp_w.value is None else count * device.tdp_w.value,
        all_in_power_w=None if device.all_in_power_w.value is None else count * device.all_in_power_w.value,
        purchase_usd=purchase_usd,
        rental_usd_per_hour=_rental(device, count),
        unknown=unknown,
    )


def _rental(device: Device, count: int) -> dict[str, float]:
    offered = {price.basis for price in device.rental} - {RentalBasis.OWNER_COST}
    return {basis.value: count * device.rental_price(basis).usd_per_hour for basis in sorted(offered)}
