"""What only the operator of a machine knows: what it cost, what it draws, what an hour of it is sold for."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moe_cap.errors import InvalidInputError
from moe_cap.hardware.spec import Cell, Confidence, Device, RentalBasis, RentalPrice


class OwnFigures(BaseModel):
    """The operator's own prices and power; what is not given stays as the catalogue has it.

    Attributes:
        source: where the figures are from, e.g. an invoice or a price list; published with every cost.
        as_of: their date, `YYYY-MM-DD`.
        price_usd: purchase price of one device; of the whole computer where the device is its processor.
        power_w: power of one device under load; of the whole computer where the device is its processor.
        rental_usd_per_hour: on-demand price of one device for one hour.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str = Field(min_length=1)
    as_of: date
    price_usd: float | None = Field(default=None, gt=0)
    power_w: float | None = Field(default=None, gt=0)
    rental_usd_per_hour: float | None = Field(default=None, gt=0)

    def onto(self, device: Device) -> Device:
        """The device with these figures in place of the catalogue's."""
        changes: dict[str, object] = {}
        if self.price_usd is not None:
            changes["price_usd"] = self._cell(self.price_usd)
        if self.power_w is not None:
            changes["tdp_w"] = self._cell(self.power_w)
        if self.rental_usd_per_hour is not None:
            rental = RentalPrice(
                RentalBasis.ON_DEMAND,
                self.rental_usd_per_hour,
                self.source,
                self.as_of.isoformat(),
                Confidence.SECONDARY,
            )
            others = (price for price in device.rental if price.basis is not RentalBasis.ON_DEMAND)
            changes["rental"] = (*others, rental)
        return replace(device, **changes)  # type: ignore[arg-type]  # names and types are those of Device, above

    def _cell(self, value: float) -> Cell:
        return Cell(
            value, self.source, self.as_of.isoformat(), Confidence.SECONDARY, note="given by the machine's operator"
        )


def read_own_figures(path: Path) -> OwnFigures:
    """Read the operator's file (YAML).

    Raises:
        InvalidInputError: no such file, or a key that is missing, unknown or of the wrong kind; the message names it.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no text, or a date that no calendar has
        raise InvalidInputError(f"{path}: {error}; MOE_CAP_MACHINE names a YAML file (docs/worker.md)") from error
    try:
        return OwnFigures.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "file"
        raise InvalidInputError(f"{path}, {key}: {first['msg']}") from error
