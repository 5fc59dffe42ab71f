"""What the operator of a machine says about it stands in every cost, with its source."""

from pathlib import Path

import pytest

from moe_cap.errors import InvalidInputError
from moe_cap.hardware import RentalBasis, find_device
from moe_cap.hardware.own_figures import read_own_figures

WHOLE = "source: invoice 17\nas_of: 2026-10-01\nprice_usd: 700\npower_w: 45\nrental_usd_per_hour: 0.1\n"


def test_own_figures_take_the_place_of_the_catalogues(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(WHOLE)
    device = read_own_figures(path).onto(find_device("h100-sxm-80gb"))
    assert device.price_usd.value == 700
    assert device.tdp_w.value == 45
    assert device.rental_price(RentalBasis.ON_DEMAND).usd_per_hour == 0.1
    assert {device.price_usd.source, device.tdp_w.source} == {"invoice 17"}


def test_what_is_not_given_stays_as_the_catalogue_has_it(tmp_path: Path) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text("source: invoice 17\nas_of: 2026-10-01\npower_w: 45\n")
    known = find_device("h100-sxm-80gb")
    device = read_own_figures(path).onto(known)
    assert device.price_usd == known.price_usd
    assert device.rental == known.rental


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("as_of: 2026-10-01\n", "source"),
        (WHOLE + "watts: 3\n", "watts"),
        (WHOLE.replace("45", "-45"), "power_w"),
        ("- 1\n", "file"),
        ("a: [", "YAML"),
        (WHOLE.replace("2026-10-01", "2026-11-31"), "day is out of range"),
    ],
)
def test_a_wrong_file_is_refused_by_the_key_that_is_wrong(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=named):
        read_own_figures(path)


def test_a_missing_file_says_which_setting_names_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="MOE_CAP_MACHINE"):
        read_own_figures(tmp_path / "none.yaml")
