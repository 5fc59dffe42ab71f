"""What a point costs on the three bases, or why nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from moe_cap.errors import MissingPriceError
from moe_cap.hardware import Device, RentalBasis, find_region
from moe_cap.metrics.cost import (
    DEFAULT_AMORTISATION,
    Basis,
    CostBreakdown,
    EnergySource,
    PowerCost,
    PurchasePrice,
    TokenRate,
    catalogue_server,
    electricity_price,
    measured_power,
    owner_cost,
    paper_cost,
    paper_purchase,
    rental_cost,
    tdp_power,
)
from moe_cap.quantity import QUANTITIES, Quantity

Source = Literal["derived", "estimated"]

REGION = "us"
NO_TOKENS = "no output token was delivered in the measured window, so nothing can be charged to one"


@dataclass(frozen=True, slots=True)
class CostInputs:
    """Everything that the cost of a point rests on.

    Attributes:
        rate: None where no output token was delivered, so that nothing can be charged to one.
        energy_j, seconds: of the timed window; energy is None where it could not be measured.
        counters: which counters the energy holds.
    """

    device: Device
    num_devices: int
    rate: TokenRate | None
    energy_j: float | None
    seconds: float
    counters: str


def cost_quantities(inputs: CostInputs) -> dict[str, Quantity]:
    """The purchase and all quantities of all three bases, each with its value or with the reason why it has none."""
    purchase = catalogue_server(inputs.device, inputs.num_devices)
    quantities = {"purchase_usd": _purchase(paper_purchase(inputs.device, inputs.num_devices))}
    for basis, compute in (
        (Basis.PAPER, lambda: _paper(inputs)),
        (Basis.OWNER, lambda: owner_cost(purchase, DEFAULT_AMORTISATION, _power(inputs), inputs.rate)),
        (Basis.RENTAL, lambda: _rental(inputs)),
    ):
        quantities |= _basis(basis, compute)
    return quantities


def assumptions() -> dict[str, JsonValue]:
    """What every figure of `cost_quantities` assumes; prices and their sources stand in the figures' own notes."""
    price = electricity_price(find_region(REGION))
    return {
        "usd_per_kwh": price.usd,
        "usd_per_kwh_source": f"{price.source} ({price.as_of})",
        "amortisation": DEFAULT_AMORTISATION.method.value,
        "lifetime_s": DEFAULT_AMORTISATION.lifetime_s,
        "residual": DEFAULT_AMORTISATION.residual,
        "cost_utilisation": DEFAULT_AMORTISATION.utilisation,
        "pue": 1.0,
        "rental_basis": RentalBasis.ON_DEMAND.value,
    }


def _paper(inputs: CostInputs) -> CostBreakdown:
    purchase = paper_purchase(inputs.device, inputs.num_devices)
    return paper_cost(purchase, _power(inputs), DEFAULT_AMORTISATION.lifetime_s, inputs.rate)


def _rental(inputs: CostInputs) -> CostBreakdown:
    return rental_cost(inputs.device.rental_price(RentalBasis.ON_DEMAND), inputs.num_devices, inputs.rate)


def _power(inputs: CostInputs) -> PowerCost:
    price = electricity_price(find_region(REGION))
    if inputs.energy_j is not None:
        return measured_power(inputs.energy_j, inputs.seconds, price, note=f"measured: {inputs.counters}")
    return tdp_power(inputs.device, inputs.num_devices, price)


def _basis(basis: Basis, compute: Callable[[], CostBreakdown]) -> dict[str, Quantity]:
    names = [name for name, spec in QUANTITIES.items() if spec.group == "cost" and name.endswith(f"_{basis.value}")]
    try:
        cost = compute()
    except MissingPriceError as error:
        return {
            name: Quantity(value=None, unit=QUANTITIES[name].unit, source="derived", reason=str(error))
            for name in names
        }
    values = {
        f"usd_per_hour_{basis.value}": cost.usd_per_hour,
        f"usd_per_million_output_tokens_{basis.value}": cost.usd_per_million_output_tokens,
        f"usd_per_million_tokens_{basis.value}": cost.usd_per_million_tokens,
        f"output_tokens_per_usd_{basis.value}": cost.tokens_per_usd,
    }
    source: Source = "estimated" if cost.energy_source is EnergySource.ESTIMATED else "derived"
    note = "; ".join(cost.notes)
    return {
        name: Quantity(value=None, unit=QUANTITIES[name].unit, source=source, reason=NO_TOKENS)
        if values[name] is None
        else Quantity(value=values[name], unit=QUANTITIES[name].unit, source=source, note=note)
        for name in names
    }


def _purchase(purchase: PurchasePrice) -> Quantity:
    """The column on which systems are classed and drawn beside the paper's: its price wherever it has one."""
    unit = QUANTITIES["purchase_usd"].unit
    try:
        return Quantity(value=purchase.usd, unit=unit, source="derived", note="; ".join(purchase.notes))
    except MissingPriceError as error:
        return Quantity(value=None, unit=unit, source="derived", reason=str(error))
