"""What a token costs, on three bases that never mix (docs/cost.md) [P1 eq. 5-7].

* `paper`: the purchase over its lifetime plus the energy of the equipment, to the letter of the equations.
* `owner`: the same with interest, residual value, utilisation and the site's overhead.
* `rental`: an hourly price that somebody asks, energy included.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from moe_cap.errors import InvalidInputError, MixedBasesError
from moe_cap.hardware import RentalBasis, RentalPrice
from moe_cap.metrics.power import (
    J_PER_KWH,
    EnergySource,
    PowerCost,
    electricity_price,
    measured_power,
    tdp_power,
)
from moe_cap.metrics.purchase import (
    DEFAULT_AMORTISATION,
    PAPER_SERVER_USD,
    Amortisation,
    AmortisationMethod,
    PartKind,
    Price,
    PricedPart,
    PurchasePrice,
    catalogue_server,
    paper_purchase,
    paper_server,
    server,
)

__all__ = [
    "DEFAULT_AMORTISATION",
    "PAPER_SERVER_USD",
    "Amortisation",
    "AmortisationMethod",
    "Basis",
    "CostBreakdown",
    "EnergySource",
    "PartKind",
    "PowerCost",
    "Price",
    "PricedPart",
    "PurchasePrice",
    "TokenRate",
    "catalogue_server",
    "electricity_price",
    "inferencex_usd_per_million_tokens",
    "measured_power",
    "owner_cost",
    "paper_cost",
    "paper_purchase",
    "paper_server",
    "rank_by_cost",
    "rental_cost",
    "server",
    "tdp_power",
    "total_usd_per_hour",
]

HOUR_S = 3600.0
ENERGY, RENT = "energy", "rent"


class Basis(StrEnum):
    """What a cost is made of."""

    PAPER = "paper"
    OWNER = "owner"
    RENTAL = "rental"


@dataclass(frozen=True, slots=True)
class TokenRate:
    """What the system delivers; `total` counts input and output tokens."""

    output_tokens_per_s: float
    total_tokens_per_s: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.output_tokens_per_s) and self.output_tokens_per_s > 0):
            raise InvalidInputError(f"output_tokens_per_s: expected a rate above 0, not {self.output_tokens_per_s!r}")
        if self.total_tokens_per_s is not None and not self.total_tokens_per_s >= self.output_tokens_per_s:
            raise InvalidInputError(
                f"total_tokens_per_s: expected at least the {self.output_tokens_per_s!r} of the output, "
                f"not {self.total_tokens_per_s!r}"
            )


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """A cost on one basis.

    Attributes:
        usd_per_hour_by_part: amortised parts and energy, or the rent; they sum to `usd_per_hour`.
        purchase_usd: the server's price; None for a rented one.
        utilisation: share of the paid time in which it serves; token costs carry the rest.
        usd_per_million_output_tokens: None when no rate was given.
        usd_per_million_tokens: over input and output tokens together; None when their rate was not given.
        tokens_per_usd, tokens_per_kwh, j_per_token, gco2_per_token: for output tokens; energy with the site's overhead.
        energy_source: whether the energy was measured or estimated; None when it is not known.
        tariff: kind of hourly price, for a rental.
        notes: sources and assumptions, for people.
    """

    basis: Basis
    usd_per_hour_by_part: Mapping[str, float]
    purchase_usd: float | None
    utilisation: float
    usd_per_million_output_tokens: float | None
    usd_per_million_tokens: float | None
    tokens_per_usd: float | None
    tokens_per_kwh: float | None
    j_per_token: float | None
    gco2_per_token: float | None
    energy_source: EnergySource | None
    tariff: RentalBasis | None
    notes: tuple[str, ...]

    @property
    def usd_per_hour(self) -> float:
        """What an hour costs, serving or not."""
        return sum(self.usd_per_hour_by_part.values())

    def __lt__(self, other: CostBreakdown) -> bool:
        """By cost of an hour.

        Raises:
            MixedBasesError: the two stand on different bases.
        """
        one_basis((self, other))
        return self.usd_per_hour < other.usd_per_hour


def one_basis(costs: Iterable[CostBreakdown]) -> Basis:
    """The basis that all of them share.

    Raises:
        MixedBasesError: they do not share one.
    """
    found = sorted({cost.basis for cost in costs})
    if len(found) != 1:
        raise MixedBasesError(f"costs on {len(found)} bases ({', '.join(found)}) cannot be added or ranked: take one")
    return found[0]


def total_usd_per_hour(costs: Iterable[CostBreakdown]) -> float:
    """The sum over several systems on one basis.

    Raises:
        MixedBasesError: they stand on different bases.
    """
    listed = tuple(costs)
    one_basis(listed)
    return sum(cost.usd_per_hour for cost in listed)


def rank_by_cost(costs: Mapping[str, CostBreakdown]) -> list[str]:
    """Names from the cheapest to the dearest output token, those without a rate last, in the given order.

    Raises:
        MixedBasesError: they stand on different bases.
    """
    one_basis(costs.values())
    per_token = {name: cost.usd_per_million_output_tokens for name, cost in costs.items()}
    return sorted(costs, key=lambda name: math.inf if (usd := per_token[name]) is None else usd)


def paper_cost(
    purchase: PurchasePrice, power: PowerCost, lifetime_s: float, rate: TokenRate | None = None
) -> CostBreakdown:
    """Equations 5-7: (c_hardware / lifetime + power * price of energy) / tokens per second.

    Straight line, no residual value, always serving, the equipment's own energy (no PUE).

    Raises:
        MissingPriceError: the price of a part is not known.
    """
    return _owned(Basis.PAPER, purchase, Amortisation(lifetime_s=lifetime_s), power.without_pue(), rate)


def owner_cost(
    purchase: PurchasePrice, amortisation: Amortisation, power: PowerCost, rate: TokenRate | None = None
) -> CostBreakdown:
    """What it costs whoever bought it (docs/metrics.md, "Cost").

    Raises:
        MissingPriceError: the price of a part is not known.
    """
    return _owned(Basis.OWNER, purchase, amortisation, power, rate)


def rental_cost(
    price: RentalPrice, num_devices: int, rate: TokenRate | None = None, *, utilisation: float = 1.0,
    power: PowerCost | None = None,
) -> CostBreakdown:  # fmt: skip
    """What it costs to rent `num_devices` by the hour; `power` adds energy figures, for the rent includes it.

    Raises:
        MixedBasesError: the price is an owner's cost per hour, which nobody rents at.
    """
    if price.basis is RentalBasis.OWNER_COST:
        raise MixedBasesError(f"{price.source}: an owner's cost per hour is no rental price")
    if num_devices < 1 or not 0 < utilisation <= 1:
        raise InvalidInputError(
            f"{num_devices} devices at utilisation {utilisation}: expected >= 1 and above 0 up to 1"
        )
    note = f"{price.basis.value}: {price.usd_per_hour:g} USD per device and hour, {price.source} ({price.as_of})"
    by_part = {RENT: price.usd_per_hour * num_devices}
    return _breakdown(Basis.RENTAL, by_part, None, utilisation, rate, power, price.basis, (note,))


def inferencex_usd_per_million_tokens(usd_per_gpu_hour: float, tokens_per_s_per_gpu: float) -> float:
    """InferenceX's figure, for comparison: the price of a GPU hour over the tokens that one GPU makes in it."""
    return usd_per_gpu_hour * 1e6 / (HOUR_S * tokens_per_s_per_gpu)


def _owned(
    basis: Basis, purchase: PurchasePrice, amortisation: Amortisation, power: PowerCost, rate: TokenRate | None
) -> CostBreakdown:
    by_part = {kind: amortisation.usd_per_s(usd) * HOUR_S for kind, usd in purchase.usd_by_part.items()}
    by_part[ENERGY] = power.usd_per_s * HOUR_S
    energy = f"energy: {power.usd_per_kwh.usd:g} USD/kWh, {power.usd_per_kwh.source} ({power.usd_per_kwh.as_of})"
    notes = (*purchase.notes, energy, power.note)
    return _breakdown(basis, by_part, purchase.usd, amortisation.utilisation, rate, power, None, notes)


def _breakdown(
    basis: Basis, by_part: Mapping[str, float], purchase_usd: float | None, utilisation: float,
    rate: TokenRate | None, power: PowerCost | None, tariff: RentalBasis | None, notes: tuple[str, ...],
) -> CostBreakdown:  # fmt: skip
    # Idle time is paid for too, and only served tokens can pay.
    usd_per_serving_s = sum(by_part.values()) / HOUR_S / utilisation
    output = rate.output_tokens_per_s if rate else None
    total = rate.total_tokens_per_s if rate else None
    joules = power.site_w / output if power and output else None
    grams = power.gco2_per_kwh if power else None
    return CostBreakdown(
        basis=basis,
        usd_per_hour_by_part=dict(by_part),
        purchase_usd=purchase_usd,
        utilisation=utilisation,
        usd_per_million_output_tokens=1e6 * usd_per_serving_s / output if output else None,
        usd_per_million_tokens=1e6 * usd_per_serving_s / total if total else None,
        tokens_per_usd=output / usd_per_serving_s if output else None,
        tokens_per_kwh=J_PER_KWH / joules if joules else None,
        j_per_token=joules,
        gco2_per_token=joules / J_PER_KWH * grams if joules is not None and grams is not None else None,
        energy_source=power.source if power else None,
        tariff=tariff,
        notes=tuple(note for note in notes if note),
    )
