"""What a server costs to buy, part by part, and what that is per second of its life [P1 eq. 5].

Prices are US dollars with source and date. Every part can be replaced by the caller (`PurchasePrice.with_part`); a part
whose price nobody knows makes the total an error, never a smaller number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from moe_cap.errors import InvalidInputError, MissingPriceError
from moe_cap.hardware import Cell, CpuPart, Device, DeviceClass, DeviceKind, DramPart

YEAR_S = 365.25 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Price:
    """An amount of US dollars, above 0, with where and when it was read. What costs nothing is left out instead."""

    usd: float
    source: str
    as_of: str

    def __post_init__(self) -> None:
        if not (math.isfinite(self.usd) and self.usd > 0):
            raise InvalidInputError(f"a price is above 0 USD, not {self.usd!r} ({self.source})")


class PartKind(StrEnum):
    """The parts of eq. 5; `host` stands for everything but the GPUs where a source gives it undivided."""

    GPU = "gpu"
    CPU = "cpu"
    MOTHERBOARD = "motherboard"
    DRAM = "dram"
    SSD = "ssd"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class PricedPart:
    """`count` units of a part (sockets, gigabytes ...); no price, and then a reason, when nobody knows it."""

    kind: PartKind
    count: float
    price: Price | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.count) and self.count > 0):
            raise InvalidInputError(f"{self.kind}: expected a count above 0, not {self.count!r}")
        if (self.price is None) == (self.reason is None):
            raise InvalidInputError(f"{self.kind}: expected either a price or the reason why there is none")

    @property
    def usd(self) -> float:
        """Price of all units.

        Raises:
            MissingPriceError: the price is not known.
        """
        if self.price is None:
            raise MissingPriceError(f"no price for {self.kind}: {self.reason}; give one")
        return self.count * self.price.usd


@dataclass(frozen=True, slots=True)
class PurchasePrice:
    """A server as a list of parts, one entry per kind."""

    parts: tuple[PricedPart, ...]

    def __post_init__(self) -> None:
        kinds = [part.kind for part in self.parts]
        if not kinds or len(set(kinds)) < len(kinds):
            raise InvalidInputError(f"expected every kind of part once, not {', '.join(kinds) or 'none'}")

    @property
    def usd_by_part(self) -> dict[str, float]:
        """Dollars by kind; they sum to `usd`."""
        return {part.kind.value: part.usd for part in self.parts}

    @property
    def usd(self) -> float:
        """c_hardware of eq. 5: GPUs, CPUs, board, DRAM and SSD together.

        Raises:
            MissingPriceError: the price of a part is not known.
        """
        return sum(self.usd_by_part.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """Every known price with where and when it was read, one line per kind."""
        return tuple(
            f"{part.kind.value}: {part.count:g} x {part.price.usd:g} USD, {part.price.source} ({part.price.as_of})"
            for part in self.parts
            if part.price is not None
        )

    def with_part(self, part: PricedPart) -> PurchasePrice:
        """The same server with this part instead of the one of its kind, or in addition."""
        return PurchasePrice((*(old for old in self.parts if old.kind is not part.kind), part))


def server(
    *, gpu: Price, num_gpus: int, cpu: Price, sockets: int, motherboard: Price, dram: Price, ssd: Price
) -> PurchasePrice:
    """Eq. 5 with a price for each part: gpu * n + cpu * sockets + motherboard + dram + ssd."""
    return PurchasePrice(
        (
            PricedPart(PartKind.GPU, num_gpus, gpu),
            PricedPart(PartKind.CPU, sockets, cpu),
            PricedPart(PartKind.MOTHERBOARD, 1, motherboard),
            PricedPart(PartKind.DRAM, 1, dram),
            PricedPart(PartKind.SSD, 1, ssd),
        )
    )


class AmortisationMethod(StrEnum):
    """`straight_line`: the loss of value spread evenly; `capital_recovery`: an annuity that pays interest too."""

    STRAIGHT_LINE = "straight_line"
    CAPITAL_RECOVERY = "capital_recovery"


@dataclass(frozen=True, slots=True)
class Amortisation:
    """How a purchase becomes a cost per second.

    Attributes:
        lifetime_s: how long the server is used.
        residual: what it is worth afterwards, as a share of its price, 0 to 1.
        utilisation: share of that time in which it serves, above 0 to 1; idle time is paid by the tokens.
        annual_rate: interest for `capital_recovery`, e.g. 0.08.
    """

    method: AmortisationMethod = AmortisationMethod.STRAIGHT_LINE
    lifetime_s: float = 5 * YEAR_S
    residual: float = 0.0
    utilisation: float = 1.0
    annual_rate: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lifetime_s) and self.lifetime_s > 0):
            raise InvalidInputError(f"lifetime_s: expected seconds above 0, not {self.lifetime_s!r}")
        if not 0 <= self.residual <= 1:
            raise InvalidInputError(f"residual: expected a share from 0 to 1, not {self.residual!r}")
        if not 0 < self.utilisation <= 1:
            raise InvalidInputError(f"utilisation: expected a share above 0 up to 1, not {self.utilisation!r}")
        if not (math.isfinite(self.annual_rate) and self.annual_rate >= 0):
            raise InvalidInputError(f"annual_rate: expected 0 or more, not {self.annual_rate!r}")
        if self.annual_rate and self.method is AmortisationMethod.STRAIGHT_LINE:
            raise InvalidInputError(
                f"annual_rate: {self.method} pays no interest, {AmortisationMethod.CAPITAL_RECOVERY} does; choose it, "
                "or give no rate"
            )

    def usd_per_s(self, purchase_usd: float) -> float:
        """Dollars per second of life, whether it serves or not.

        The capital recovery factor is i (1+i)^n / ((1+i)^n - 1) over n years; what is left at the end is discounted.
        """
        if self.method is AmortisationMethod.STRAIGHT_LINE or self.annual_rate == 0:
            return purchase_usd * (1 - self.residual) / self.lifetime_s
        years = self.lifetime_s / YEAR_S
        # expm1 and log1p: the same formula without the cancellation at small rates.
        shrunk = -math.expm1(-years * math.log1p(self.annual_rate))
        factor = self.annual_rate / shrunk
        present = purchase_usd * (1 - self.residual * (1 - shrunk))
        return present * factor / YEAR_S


DEFAULT_AMORTISATION = Amortisation()
"""Five years, straight line, worth nothing afterwards, always serving: an assumption, published with every figure."""

PAPER = "MoE-CAP, arXiv 2412.07067v1, Tables 2-4 (A100-80GB servers)"
PAPER_DATE = "2024-12"
PAPER_SERVER_USD = {1: 29_910.0, 2: 50_640.0, 4: 92_100.0, 8: 175_030.0}
"""Published totals by number of GPUs, printed in kUSD with two decimals."""
WHOLE_COMPUTERS = frozenset({DeviceKind.SOC, DeviceKind.CPU})
PAPER_DEVICES = frozenset({"a100-pcie-80gb", "a100-sxm-80gb"})
"""The paper says A100-80GB and no more."""
PAPER_GPU_USD = 20_730.0
PAPER_HOST_USD = 9_180.0
"""What is left of the one-GPU server. The paper prints totals, not parts: both numbers are the line through them."""
DEVICES_PER_HOST = 8
"""Devices that share one server: as many as in the paper's largest."""


def paper_server(num_gpus: int) -> PurchasePrice:
    """The paper's A100-80GB server; with 1, 2, 4 or 8 GPUs its total is the published one, to the dollar.

    The split is ours: 20,730 USD per GPU and the rest for the host, 9,180 USD, or 9,190 with eight GPUs, where the
    published total is 10 USD off the line, the last digit that is printed. Other counts lie on the line, with a host
    for every eight GPUs begun.
    """
    gpus = PricedPart(PartKind.GPU, num_gpus, Price(PAPER_GPU_USD, PAPER, PAPER_DATE))
    total_usd = PAPER_SERVER_USD.get(num_gpus)
    host_usd = PAPER_HOST_USD if total_usd is None else total_usd - gpus.usd
    return PurchasePrice((gpus, _undivided_hosts(hosts_of(num_gpus), host_usd)))


def paper_purchase(device: Device, num_devices: int) -> PurchasePrice:
    """The paper basis: its own server for the A100-80GB, else the catalogue's GPU price and the paper's host."""
    return paper_server(num_devices) if device.id in PAPER_DEVICES else catalogue_server(device, num_devices)


def hosts_of(num_devices: int, devices_per_host: int = DEVICES_PER_HOST) -> int:
    """Servers that so many devices stand in."""
    return math.ceil(num_devices / devices_per_host)


def cell_price(cell: Cell) -> Price | None:
    """A catalogue's cell as a price; None when it has no value."""
    return None if cell.value is None else Price(cell.value, cell.source, cell.as_of)


def catalogue_server(
    device: Device, num_devices: int, *, devices_per_host: int = DEVICES_PER_HOST, cpu: CpuPart | None = None,
    sockets: int = 1, dram: DramPart | None = None, dram_gb: float | None = None,
) -> PurchasePrice:  # fmt: skip
    """Devices of the catalogue at its indicative prices, and a host for every `devices_per_host` of them begun.

    `sockets` and `dram_gb` are those of one host. Without a CPU a host is the paper's, undivided; where the device's
    price is that of a whole computer (a system on a chip, a processor that computes by itself) or a share of a rack,
    there is no host to add. Board and SSD have no catalogue price: with a CPU they are unknown until given.
    """
    gpus = PricedPart(PartKind.GPU, num_devices, *_price_or_reason(device.price_usd))
    if device.kind in WHOLE_COMPUTERS or device.device_class is DeviceClass.RACK:
        return PurchasePrice((gpus,))
    hosts = hosts_of(num_devices, devices_per_host)
    if cpu is None:
        return PurchasePrice((gpus, _undivided_hosts(hosts, PAPER_HOST_USD)))
    parts = [gpus, PricedPart(PartKind.CPU, hosts * sockets, *_price_or_reason(cpu.price_usd))]
    if dram is not None and dram_gb is not None:
        parts.append(PricedPart(PartKind.DRAM, hosts * dram_gb, *_price_or_reason(dram.usd_per_gb)))
    else:
        parts.append(PricedPart(PartKind.DRAM, hosts, None, "no size was given"))
    unknown = (PricedPart(kind, hosts, None, "not in the catalogue") for kind in (PartKind.MOTHERBOARD, PartKind.SSD))
    return PurchasePrice((*parts, *unknown))


def _undivided_hosts(hosts: int, host_usd: float) -> PricedPart:
    return PricedPart(PartKind.HOST, hosts, Price(host_usd, PAPER, PAPER_DATE))


def _price_or_reason(cell: Cell) -> tuple[Price | None, str | None]:
    price = cell_price(cell)
    return price, None if price else cell.note
