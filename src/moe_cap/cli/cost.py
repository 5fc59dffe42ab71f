"""`moe-cap cost`: what a system costs, on three bases side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from moe_cap.cli.output import AsJson, print_facts, print_json, print_table
from moe_cap.errors import InvalidInputError, MissingPriceError
from moe_cap.hardware import Device, Region, RentalBasis, RentalPrice, find_device, find_region
from moe_cap.hardware.spec import Confidence
from moe_cap.metrics.cost import (
    Amortisation,
    AmortisationMethod,
    CostBreakdown,
    PartKind,
    PowerCost,
    Price,
    PricedPart,
    PurchasePrice,
    TokenRate,
    catalogue_server,
    electricity_price,
    owner_cost,
    paper_cost,
    paper_purchase,
    rental_cost,
    server,
    tdp_power,
)
from moe_cap.metrics.power import EnergySource
from moe_cap.metrics.purchase import YEAR_S

GIVEN, GIVEN_DATE = "given on the command line", "now"

Hardware = Annotated[str, typer.Option(help="Device id; see moe-cap hardware.")]
Count = Annotated[int, typer.Option(min=1, help="Devices in the system.")]
Rate = Annotated[float | None, typer.Option("--tokens-per-s", help="Output tokens per second that it delivers.")]
TotalRate = Annotated[float | None, typer.Option("--total-tokens-per-s", help="Input and output tokens per second.")]
Years = Annotated[float, typer.Option("--lifetime-years", help="How long it is used.")]
Method = Annotated[AmortisationMethod, typer.Option(help="How the purchase is spread over that time.")]
AnnualRate = Annotated[float | None, typer.Option(help="Interest of capital_recovery, e.g. 0.08.")]
Residual = Annotated[float, typer.Option(help="Share of the price that is left at the end.")]
Utilisation = Annotated[float, typer.Option(help="Share of the time in which it serves.")]
Pue = Annotated[float, typer.Option(help="The site's power over the equipment's.")]
RegionId = Annotated[str, typer.Option("--region", help="Where the electricity comes from.")]
UsdPerKwh = Annotated[float | None, typer.Option(help="Price of electricity, instead of the region's.")]
PowerW = Annotated[float | None, typer.Option(help="Measured power; thermal design power is taken if not given.")]
GpuUsd = Annotated[float | None, typer.Option(help="Price of one device, instead of the catalogue's.")]
CpuUsd = Annotated[float | None, typer.Option(help="Price of one CPU; needs board, DRAM and SSD too.")]
Sockets = Annotated[int, typer.Option(min=1, help="CPUs, for --cpu-usd.")]
BoardUsd = Annotated[float | None, typer.Option("--motherboard-usd", help="Price of the board.")]
DramUsd = Annotated[float | None, typer.Option(help="Price of all DRAM.")]
SsdUsd = Annotated[float | None, typer.Option(help="Price of all SSDs.")]
Tariff = Annotated[RentalBasis, typer.Option("--tariff", help="Kind of hourly price of the catalogue.")]
HourUsd = Annotated[float | None, typer.Option("--usd-per-device-hour", help="Rent, instead of the catalogue's.")]


def run(
    hardware: Hardware,
    count: Count = 1,
    tokens_per_s: Rate = None,
    total_tokens_per_s: TotalRate = None,
    lifetime_years: Years = 5.0,
    method: Method = AmortisationMethod.STRAIGHT_LINE,
    annual_rate: AnnualRate = None,
    residual: Residual = 0.0,
    utilisation: Utilisation = 1.0,
    pue: Pue = 1.0,
    region: RegionId = "us",
    usd_per_kwh: UsdPerKwh = None,
    power_w: PowerW = None,
    gpu_usd: GpuUsd = None,
    cpu_usd: CpuUsd = None,
    sockets: Sockets = 1,
    motherboard_usd: BoardUsd = None,
    dram_usd: DramUsd = None,
    ssd_usd: SsdUsd = None,
    tariff: Tariff = RentalBasis.ON_DEMAND,
    usd_per_device_hour: HourUsd = None,
    as_json: AsJson = False,
) -> None:
    """Cost of a system on the paper's, the owner's and the rental basis; they stand side by side and never mix."""
    device = find_device(hardware)
    rate = _rate(tokens_per_s, total_tokens_per_s)
    if method is AmortisationMethod.CAPITAL_RECOVERY and annual_rate is None:
        raise InvalidInputError(f"--method {method} needs its interest: give --annual-rate, e.g. 0.08")
    amortisation = Amortisation(method, lifetime_years * YEAR_S, residual, utilisation, annual_rate or 0.0)
    parts = {"cpu": cpu_usd, "motherboard": motherboard_usd, "dram": dram_usd, "ssd": ssd_usd}

    def purchase(of: Callable[[Device, int], PurchasePrice]) -> PurchasePrice:
        return edited(of(device, count), count, gpu_usd, parts, sockets)

    def power() -> PowerCost:
        return power_of(device, count, find_region(region), usd_per_kwh, power_w, pue)

    bases = {
        "paper": lambda: paper_cost(purchase(paper_purchase), power(), amortisation.lifetime_s, rate),
        "owner": lambda: owner_cost(purchase(catalogue_server), amortisation, power(), rate),
        "rental": lambda: rental_cost(
            rent_of(device, tariff, usd_per_device_hour), count, rate, utilisation=utilisation
        ),
    }
    document = {"hardware": device.id, "count": count, **{name: _or_reason(cost) for name, cost in bases.items()}}
    if as_json:
        print_json(document)
    else:
        _print(document, tuple(bases))


def edited(
    purchase: PurchasePrice, count: int, gpu_usd: float | None, parts: dict[str, float | None], sockets: int
) -> PurchasePrice:
    """The server with the prices that were given; the host's parts are given all or not at all.

    Raises:
        InvalidInputError: some of the host's parts were given.
    """
    given = {name: Price(usd, GIVEN, GIVEN_DATE) for name, usd in parts.items() if usd is not None}
    gpu = Price(gpu_usd, GIVEN, GIVEN_DATE) if gpu_usd is not None else None
    if given and len(given) < len(parts):
        missing = ", ".join(name for name in parts if name not in given)
        raise InvalidInputError(f"a host is given by all of its parts: give the price of {missing} too")
    if given:
        listed = next(part.price for part in purchase.parts if part.kind is PartKind.GPU)
        if gpu is None and listed is None:
            raise MissingPriceError("the device has no catalogue price: give --gpu-usd")
        return server(gpu=gpu or listed, num_gpus=count, sockets=sockets, **given)  # type: ignore[arg-type]
    return purchase.with_part(PricedPart(PartKind.GPU, count, gpu)) if gpu else purchase


def power_of(
    device: Device, count: int, region: Region, usd_per_kwh: float | None, power_w: float | None, pue: float
) -> PowerCost:
    """Power and its price, from what was given or else from the catalogue.

    Raises:
        MissingPriceError: the catalogue lacks what was not given.
    """
    price = Price(usd_per_kwh, GIVEN, GIVEN_DATE) if usd_per_kwh is not None else electricity_price(region)
    grams = region.gco2_per_kwh.value
    if power_w is None:
        return tdp_power(device, count, price, pue=pue, gco2_per_kwh=grams)
    return PowerCost(power_w, EnergySource.MEASURED, price, pue, grams, f"{power_w:g} W, {GIVEN}")


def rent_of(device: Device, tariff: RentalBasis, usd_per_device_hour: float | None) -> RentalPrice:
    """The hourly price that was given, or the catalogue's newest.

    Raises:
        MissingPriceError: the catalogue has none on this tariff.
    """
    if usd_per_device_hour is None:
        return device.rental_price(tariff)
    return RentalPrice(tariff, usd_per_device_hour, GIVEN, GIVEN_DATE, Confidence.UNVERIFIED)


def _rate(output: float | None, total: float | None) -> TokenRate | None:
    if output is None and total is not None:
        raise InvalidInputError("--total-tokens-per-s needs --tokens-per-s")
    return None if output is None else TokenRate(output, total)


def _or_reason(cost: Callable[[], CostBreakdown]) -> dict[str, Any]:
    try:
        found = cost()
    except MissingPriceError as error:
        return {"usd_per_hour": None, "reason": str(error)}
    return {"usd_per_hour": found.usd_per_hour, **asdict(found)}


def _print(document: dict[str, Any], bases: tuple[str, ...]) -> None:
    names = [name for name in document["owner"] | document["paper"] | document["rental"] if name != "notes"]
    rows = [(name, *(_short(document[basis].get(name)) for basis in bases)) for name in names]
    print_table(f"{document['count']} x {document['hardware']}", ("quantity", *bases), rows)
    for basis in bases:
        print_facts("", {f"{basis}, {i}": note for i, note in enumerate(document[basis].get("notes", ()), start=1)})


def _short(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name} {usd:.4g}" for name, usd in value.items())
    return value
