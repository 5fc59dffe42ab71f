"""The cost engine against the paper's servers, worked examples, and what must hold for any prices."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap import hardware
from moe_cap.errors import InvalidInputError, MissingPriceError, MixedBasesError
from moe_cap.hardware import RentalBasis
from moe_cap.metrics.cost import (
    PAPER_SERVER_USD,
    Amortisation,
    AmortisationMethod,
    Basis,
    EnergySource,
    PartKind,
    PowerCost,
    Price,
    PricedPart,
    PurchasePrice,
    TokenRate,
    catalogue_server,
    electricity_price,
    inferencex_usd_per_million_tokens,
    measured_power,
    owner_cost,
    paper_cost,
    paper_purchase,
    paper_server,
    rank_by_cost,
    rental_cost,
    server,
    tdp_power,
    total_usd_per_hour,
)
from moe_cap.metrics.purchase import PAPER_GPU_USD, PAPER_HOST_USD, YEAR_S

amounts = st.floats(1, 1e6, allow_nan=False)
shares = st.floats(0.01, 1.0)


def price(usd: float) -> Price:
    return Price(usd, "test", "2026-11")


KWH = price(0.1)
POWER = PowerCost(1000.0, EnergySource.MEASURED, KWH, gco2_per_kwh=400.0, note="counters")
RATE = TokenRate(100.0, 400.0)


@pytest.mark.parametrize(("num_gpus", "printed_kusd"), [(1, "29.91"), (2, "50.64"), (4, "92.10"), (8, "175.03")])
def test_the_papers_servers_come_out_to_the_dollar(num_gpus: int, printed_kusd: str) -> None:
    purchase = paper_server(num_gpus)
    assert purchase.usd == pytest.approx(float(printed_kusd) * 1000, abs=0.5)
    assert f"{purchase.usd / 1000:.2f}" == printed_kusd
    assert purchase.usd_by_part["gpu"] == num_gpus * PAPER_GPU_USD
    assert purchase.usd_by_part["host"] == pytest.approx(PAPER_HOST_USD, abs=10.0), "the last printed digit is 10 USD"


def test_a_server_between_the_published_ones_lies_between_them() -> None:
    assert paper_server(3).usd == 3 * PAPER_GPU_USD + PAPER_HOST_USD
    assert PAPER_SERVER_USD[2] < paper_server(3).usd < PAPER_SERVER_USD[4]


def test_the_papers_basis_takes_the_paper_for_its_own_gpu_and_the_catalogue_for_others() -> None:
    assert paper_purchase(hardware.find_device("a100-pcie-80gb"), 8).usd == 175_030
    assert paper_purchase(hardware.find_device("h100-pcie-80gb"), 2).usd == 2 * 28_000 + PAPER_HOST_USD


@pytest.mark.parametrize(("count", "hosts"), [(8, 1), (9, 2), (16, 2), (64, 8)])
def test_every_eight_devices_begun_need_a_host(count: int, hosts: int) -> None:
    for device_id in ("a100-sxm-80gb", "h100-sxm-80gb"):
        device = hardware.find_device(device_id)
        for purchase in (paper_purchase(device, count), catalogue_server(device, count)):
            by_part = purchase.usd_by_part
            assert by_part["host"] == pytest.approx(hosts * PAPER_HOST_USD, abs=10.0)
            assert purchase.usd == by_part["gpu"] + by_part["host"]


def test_equation_5_sums_gpus_sockets_board_dram_and_ssd() -> None:
    purchase = server(
        gpu=price(19_000),
        num_gpus=8,
        cpu=price(7_214),
        sockets=2,
        motherboard=price(1_500),
        dram=price(9_000),
        ssd=price(800),
    )
    assert purchase.usd == 8 * 19_000 + 2 * 7_214 + 1_500 + 9_000 + 800
    cheaper = purchase.with_part(PricedPart(PartKind.DRAM, 1, price(4_000)))
    assert cheaper.usd == purchase.usd - 5_000
    assert len(cheaper.parts) == 5


def test_an_unknown_price_is_an_error_and_never_nothing() -> None:
    purchase = catalogue_server(hardware.find_device("tpu-v5e"), 4)
    with pytest.raises(MissingPriceError, match="gpu: for rent only"):
        _ = purchase.usd
    known = purchase.with_part(PricedPart(PartKind.GPU, 4, price(5_000)))
    assert known.usd == 20_000 + PAPER_HOST_USD
    with pytest.raises(InvalidInputError, match="above 0"):
        price(0.0)


def test_a_whole_computer_or_a_share_of_a_rack_has_no_host_to_add() -> None:
    assert catalogue_server(hardware.find_device("m3-ultra-512gb"), 1).usd == 9_499
    assert set(catalogue_server(hardware.find_device("gb200-nvl72"), 4).usd_by_part) == {"gpu"}


def test_parts_of_the_catalogue_can_replace_the_undivided_host() -> None:
    dram = hardware.all_dram()[0]
    purchase = catalogue_server(
        hardware.find_device("a100-sxm-80gb"), 8, cpu=hardware.find_cpu("epyc-9004"), sockets=2, dram=dram, dram_gb=2048
    )
    with pytest.raises(MissingPriceError, match="motherboard"):
        _ = purchase.usd
    for kind in (PartKind.MOTHERBOARD, PartKind.SSD):
        purchase = purchase.with_part(PricedPart(kind, 1, price(1_000)))
    assert purchase.usd == 8 * 19_000 + 2 * 11_805 + 2048 * 5 + 2_000
    two_hosts = catalogue_server(
        hardware.find_device("a100-sxm-80gb"),
        16,
        cpu=hardware.find_cpu("epyc-9004"),
        sockets=2,
        dram=dram,
        dram_gb=2048,
    )
    counts = {part.kind: part.count for part in two_hosts.parts}
    assert counts == {PartKind.GPU: 16, PartKind.CPU: 4, PartKind.DRAM: 4096, PartKind.MOTHERBOARD: 2, PartKind.SSD: 2}


def test_the_papers_token_cost_by_hand() -> None:
    # 175,030 USD over 5 years is 0.0011093 USD/s; 4 kW at 0.15 USD/kWh 0.00016667; Table 4's 223.71 tok/s.
    power = PowerCost(4000.0, EnergySource.ESTIMATED, price(0.15), pue=1.5)
    cost = paper_cost(paper_server(8), power, 5 * YEAR_S, TokenRate(223.71))
    by_hand = (175_030 / (5 * 365.25 * 86400) + 4 / 3600 * 0.15) / 223.71 * 1e6
    assert cost.usd_per_million_output_tokens == pytest.approx(by_hand, rel=1e-12)
    assert cost.purchase_usd == 175_030
    assert cost.usd_per_million_tokens is None, "the rate of input tokens is not known"
    assert cost.j_per_token == pytest.approx(4000 / 223.71)


def test_the_owners_cost_by_hand() -> None:
    amortisation = Amortisation(lifetime_s=3 * YEAR_S, residual=0.2, utilisation=0.5)
    power = replace(POWER, pue=1.5)
    cost = owner_cost(PurchasePrice((PricedPart(PartKind.GPU, 1, price(30_000)),)), amortisation, power, RATE)
    per_hour = 30_000 * 0.8 / (3 * 8766) + 1.5 * 0.1
    assert cost.usd_per_hour == pytest.approx(per_hour)
    assert cost.usd_per_million_output_tokens == pytest.approx(per_hour / 3600 / 100 / 0.5 * 1e6)
    assert cost.usd_per_million_tokens == pytest.approx(cost.usd_per_million_output_tokens / 4)
    assert cost.tokens_per_usd * cost.usd_per_million_output_tokens == pytest.approx(1e6)
    assert cost.j_per_token == pytest.approx(15.0)
    assert cost.tokens_per_kwh == pytest.approx(3.6e6 / 15)
    assert cost.gco2_per_token == pytest.approx(15 / 3.6e6 * 400)
    assert cost.energy_source is EnergySource.MEASURED


def test_capital_recovery_is_the_annuity_of_the_textbook() -> None:
    # 100,000 at 8 % over 5 years: 25,045.65 a year.
    annuity = Amortisation(AmortisationMethod.CAPITAL_RECOVERY, 5 * YEAR_S, annual_rate=0.08)
    assert annuity.usd_per_s(100_000) * YEAR_S == pytest.approx(25_045.65, abs=0.01)
    # A residual of 20 %: 0.2 * 100,000 / (1.08^5 - 1) * 0.08 less a year, the sinking fund of that value.
    with_rest = replace(annuity, residual=0.2)
    assert with_rest.usd_per_s(100_000) * YEAR_S == pytest.approx(25_045.65 - 20_000 * 0.08 / (1.08**5 - 1), abs=0.01)


@given(amounts, st.floats(0.5, 20), st.floats(0, 0.9))
def test_capital_recovery_without_interest_is_the_straight_line(usd: float, years: float, residual: float) -> None:
    straight = Amortisation(AmortisationMethod.STRAIGHT_LINE, years * YEAR_S, residual)
    for rate in (0.0, 1e-9):
        recovery = Amortisation(AmortisationMethod.CAPITAL_RECOVERY, years * YEAR_S, residual, annual_rate=rate)
        assert recovery.usd_per_s(usd) == pytest.approx(straight.usd_per_s(usd), rel=1e-6)


@given(amounts, st.floats(0.5, 20), st.floats(0, 1), st.floats(0.001, 0.3))
def test_interest_only_adds(usd: float, years: float, residual: float, rate: float) -> None:
    straight = Amortisation(AmortisationMethod.STRAIGHT_LINE, years * YEAR_S, residual)
    recovery = Amortisation(AmortisationMethod.CAPITAL_RECOVERY, years * YEAR_S, residual, annual_rate=rate)
    assert recovery.usd_per_s(usd) >= straight.usd_per_s(usd) * (1 - 1e-9)


@given(st.lists(amounts, min_size=5, max_size=5), st.integers(1, 16), st.integers(1, 4), shares)
def test_parts_sum_to_the_whole(usd: list[float], gpus: int, sockets: int, utilisation: float) -> None:
    gpu, cpu, board, dram, ssd = map(price, usd)
    purchase = server(gpu=gpu, num_gpus=gpus, cpu=cpu, sockets=sockets, motherboard=board, dram=dram, ssd=ssd)
    assert sum(purchase.usd_by_part.values()) == pytest.approx(purchase.usd)
    cost = owner_cost(purchase, Amortisation(utilisation=utilisation), POWER, RATE)
    assert sum(cost.usd_per_hour_by_part.values()) == pytest.approx(cost.usd_per_hour)
    assert set(cost.usd_per_hour_by_part) == {"gpu", "cpu", "motherboard", "dram", "ssd", "energy"}


@given(amounts, st.floats(1.01, 10), shares, shares)
def test_tokens_cost_more_when_parts_do_and_when_the_server_idles(
    usd: float, dearer: float, busy: float, idle: float
) -> None:
    def per_token(gpu_usd: float, utilisation: float) -> float:
        purchase = PurchasePrice((PricedPart(PartKind.GPU, 1, price(gpu_usd)),))
        return owner_cost(purchase, Amortisation(utilisation=utilisation), POWER, RATE).usd_per_million_output_tokens

    assert per_token(usd * dearer, busy) > per_token(usd, busy)
    assert per_token(usd, min(busy, idle)) >= per_token(usd, max(busy, idle))


@given(st.floats(1, 1e5), st.floats(1, 3), st.floats(0.01, 1), st.floats(0.1, 1e5))
def test_energy_grows_with_power_overhead_and_price(watts: float, pue: float, usd_per_kwh: float, rate: float) -> None:
    power = PowerCost(watts, EnergySource.MEASURED, price(usd_per_kwh), pue)
    assert power.site_w >= watts
    assert power.usd_per_s * 3600 == pytest.approx(watts * pue / 1000 * usd_per_kwh)
    cost = owner_cost(paper_server(1), Amortisation(), power, TokenRate(rate))
    assert cost.j_per_token * cost.tokens_per_kwh == pytest.approx(3.6e6)
    assert cost.gco2_per_token is None, "the intensity is not known"


def test_rental_by_hand() -> None:
    rent = hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.RESERVED)
    cost = rental_cost(rent, 8, TokenRate(2000.0), utilisation=0.8, power=POWER)
    assert cost.usd_per_hour == 16.0
    assert cost.usd_per_million_output_tokens == pytest.approx(16 / 3600 / 2000 / 0.8 * 1e6)
    assert cost.tariff is RentalBasis.RESERVED
    assert cost.purchase_usd is None
    assert cost.usd_per_hour_by_part == {"rent": 16.0}, "the rent includes the energy"
    assert cost.j_per_token == pytest.approx(0.5)
    assert any("2026-09" in note for note in cost.notes)


@given(st.floats(0.1, 10), st.floats(1, 1e5), st.integers(1, 16))
def test_inferencex_is_the_rental_of_a_busy_system(usd_per_hour: float, per_gpu: float, gpus: int) -> None:
    rent = replace(hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.RESERVED), usd_per_hour=usd_per_hour)
    cost = rental_cost(rent, gpus, TokenRate(per_gpu * gpus))
    assert inferencex_usd_per_million_tokens(usd_per_hour, per_gpu) == pytest.approx(cost.usd_per_million_output_tokens)


def test_inferencex_by_hand() -> None:
    assert inferencex_usd_per_million_tokens(1.41, 1000.0) == pytest.approx(0.39166667)


def test_bases_never_mix() -> None:
    rent = hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.ON_DEMAND)
    costs = {
        "paper": paper_cost(paper_server(8), POWER, 5 * YEAR_S, RATE),
        "owner": owner_cost(paper_server(8), Amortisation(), POWER, RATE),
        "rental": rental_cost(rent, 8, RATE),
    }
    assert [cost.basis for cost in costs.values()] == list(Basis)
    for one, other in (("paper", "owner"), ("owner", "rental"), ("paper", "rental")):
        with pytest.raises(MixedBasesError, match=f"{one}, {other}|{other}, {one}"):
            rank_by_cost({one: costs[one], other: costs[other]})
        with pytest.raises(MixedBasesError):
            total_usd_per_hour([costs[one], costs[other]])
        with pytest.raises(MixedBasesError):
            sorted([costs[one], costs[other]])


def test_an_owners_cost_per_hour_is_no_rental() -> None:
    owner = hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.OWNER_COST)
    with pytest.raises(MixedBasesError, match="no rental price"):
        rental_cost(owner, 8, RATE)


def test_ranking_is_by_token_and_puts_the_unknown_last() -> None:
    rent = hardware.find_device("h100-sxm-80gb").rental_price(RentalBasis.RESERVED)
    costs = {
        "unknown": rental_cost(rent, 1),
        "slow": rental_cost(rent, 8, TokenRate(10.0)),
        "fast": rental_cost(rent, 8, TokenRate(99.0)),
    }
    assert rank_by_cost(costs) == ["fast", "slow", "unknown"]
    assert total_usd_per_hour(costs.values()) == pytest.approx(17 * 2.0)
    assert costs["unknown"] < costs["slow"]


def test_measured_and_estimated_energy_are_marked() -> None:
    measured = measured_power(7200.0, 60.0, KWH, note="NVML")
    assert (measured.power_w, measured.source, measured.note) == (120.0, EnergySource.MEASURED, "NVML")
    estimated = tdp_power(hardware.find_device("a100-sxm-80gb"), 4, KWH, host_w=350)
    assert (estimated.power_w, estimated.source) == (4 * 400 + 350, EnergySource.ESTIMATED)
    assert "TDP" in estimated.note
    with pytest.raises(MissingPriceError, match="not published"):
        tdp_power(hardware.find_device("tpu7x"), 1, KWH)


def test_electricity_comes_from_a_region_or_is_refused() -> None:
    found = electricity_price(hardware.find_region("us-texas"))
    assert found.usd == 0.066
    assert "Texas" in found.source
    with pytest.raises(MissingPriceError, match="no electricity price"):
        electricity_price(hardware.find_region("fr"))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Amortisation(utilisation=0.0), lambda: Amortisation(lifetime_s=-1), lambda: Amortisation(residual=1.1),
        lambda: Amortisation(annual_rate=-0.1), lambda: Amortisation(annual_rate=0.08),
        lambda: TokenRate(0.0), lambda: TokenRate(10.0, 5.0),
        lambda: PowerCost(100.0, EnergySource.MEASURED, KWH, pue=0.9),
        lambda: PowerCost(0.0, EnergySource.MEASURED, KWH),
        lambda: PricedPart(PartKind.GPU, 0, KWH), lambda: PricedPart(PartKind.GPU, 1, None), lambda: PurchasePrice(()),
        lambda: measured_power(1.0, 0.0, KWH, note=""), lambda: paper_server(0), lambda: price(math.nan),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(wrong: object) -> None:
    with pytest.raises(InvalidInputError):
        wrong()
