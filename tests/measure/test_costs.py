"""Which price stands in which column, and that the row says so."""

import pytest

from moe_cap.hardware import find_device
from moe_cap.measure.costs import CostInputs, cost_quantities
from moe_cap.metrics.cost import TokenRate
from moe_cap.metrics.purchase import PAPER, PAPER_SERVER_USD, catalogue_server
from moe_cap.quantity import Quantity

RATE = TokenRate(output_tokens_per_s=100.0, total_tokens_per_s=200.0)


def quantities(device: str, count: int, rate: TokenRate | None = RATE) -> dict[str, Quantity]:
    return cost_quantities(CostInputs(find_device(device), count, rate, None, 10.0, "none"))


@pytest.mark.parametrize("count", PAPER_SERVER_USD)
def test_purchase_of_the_papers_servers_is_the_papers(count: int) -> None:
    purchase = quantities("a100-sxm-80gb", count)["purchase_usd"]
    assert purchase.value == PAPER_SERVER_USD[count]
    assert PAPER in str(purchase.note)


def test_other_purchases_name_each_price_with_its_source_and_date() -> None:
    device = find_device("h100-sxm-80gb")
    purchase = quantities(device.id, 8)["purchase_usd"]
    assert purchase.value == catalogue_server(device, 8).usd
    assert f"{device.price_usd.source} ({device.price_usd.as_of})" in str(purchase.note)


def test_a_purchase_is_that_of_the_plan_beyond_one_host_too() -> None:
    assert quantities("h100-sxm-80gb", 16)["purchase_usd"].value == 16 * 38_000 + 2 * 9_180, "as tests/planner has it"


def test_without_output_the_hour_keeps_its_price_and_the_token_has_a_reason() -> None:
    serving, silent = quantities("h100-sxm-80gb", 8), quantities("h100-sxm-80gb", 8, rate=None)
    assert set(silent) == set(serving)
    for name, quantity in silent.items():
        if name == "purchase_usd" or name.startswith("usd_per_hour"):
            assert quantity == serving[name]
        else:
            assert quantity.value is None
            assert "no output token" in str(quantity.reason)
