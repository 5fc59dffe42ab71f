"""What the energy of a system costs, measured or estimated and never unmarked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from moe_cap.errors import InvalidInputError, MissingPriceError
from moe_cap.hardware import Cell, Device, Region
from moe_cap.metrics.purchase import Price

J_PER_KWH = 3.6e6


class EnergySource(StrEnum):
    """`measured`: counters over the timed window; `estimated`: from thermal design power."""

    MEASURED = "measured"
    ESTIMATED = "estimated"


@dataclass(frozen=True, slots=True)
class PowerCost:
    """Power of a system while it serves, and what a kilowatt hour costs there.

    Attributes:
        power_w: of the equipment itself.
        source: where the power comes from.
        usd_per_kwh: price of a kilowatt hour.
        pue: power usage effectiveness: the site's power over the equipment's, 1 or more.
        gco2_per_kwh: grams of CO2 of a kilowatt hour, None when not known.
        note: which counters, or which estimate.
    """

    power_w: float
    source: EnergySource
    usd_per_kwh: Price
    pue: float = 1.0
    gco2_per_kwh: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.power_w) and self.power_w > 0):
            raise InvalidInputError(f"power_w: expected watts above 0, not {self.power_w!r}")
        if not (math.isfinite(self.pue) and self.pue >= 1):
            raise InvalidInputError(f"pue: expected 1 or more, not {self.pue!r}")

    @property
    def site_w(self) -> float:
        """Power drawn at the site, cooling and losses included."""
        return self.power_w * self.pue

    @property
    def usd_per_s(self) -> float:
        """What a second of it costs."""
        return self.site_w * self.usd_per_kwh.usd / J_PER_KWH

    def without_pue(self) -> PowerCost:
        """The equipment alone, as the paper counts it."""
        return replace(self, pue=1.0)


def measured_power(
    energy_j: float,
    window_s: float,
    usd_per_kwh: Price,
    *,
    pue: float = 1.0,
    gco2_per_kwh: float | None = None,
    note: str,
) -> PowerCost:
    """From counters read at both ends of the timed window; `note` names the counters."""
    if not window_s > 0:
        raise InvalidInputError(f"window_s: expected seconds above 0, not {window_s!r}")
    return PowerCost(energy_j / window_s, EnergySource.MEASURED, usd_per_kwh, pue, gco2_per_kwh, note)


def tdp_power(
    device: Device, num_devices: int, usd_per_kwh: Price, *, host_w: float = 0.0, pue: float = 1.0,
    gco2_per_kwh: float | None = None,
) -> PowerCost:  # fmt: skip
    """Every device at its thermal design power plus `host_w` for the host: an upper estimate, marked so.

    Raises:
        MissingPriceError: the device's power is not published.
    """
    tdp_w = device.tdp_w.value
    if tdp_w is None:
        raise MissingPriceError(f"{device.id} has no published power: {device.tdp_w.note}; give the watts")
    note = f"estimated: {num_devices} x {tdp_w:g} W (TDP of {device.id}) + {host_w:g} W for the host"
    return PowerCost(num_devices * tdp_w + host_w, EnergySource.ESTIMATED, usd_per_kwh, pue, gco2_per_kwh, note)


def electricity_price(region: Region) -> Price:
    """The region's price of a kilowatt hour.

    Raises:
        MissingPriceError: the catalogue has none.
    """
    cell: Cell = region.usd_per_kwh
    if cell.value is None:
        raise MissingPriceError(f"{region.id} has no electricity price: {cell.note}; give one per kWh")
    return Price(cell.value, f"{region.name}: {cell.source}", cell.as_of)
