"""Colours are tokens; what is written in them can be read."""

import re

import pytest

from moe_cap.web.style import STATIC

THEMES = {"light": ":root, body", "dark": "body.dark"}
GROUNDS = ("bg", "surface", "sunken", "accent-soft")
"""What text stands on: the page, cards and cells, a hovered row, a selected one."""


def tokens(theme: str) -> dict[str, str]:
    block = (STATIC / "cap.css").read_text().partition(f"{THEMES[theme]} {{")[2].partition("}")[0]
    return dict(re.findall(r"--cap-([\w-]+): #([0-9a-f]{6});", block))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_black_on_white_is_the_greatest_contrast() -> None:
    assert contrast("ffffff", "000000") == pytest.approx(21)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("ink", ["ink", "muted", "faint"])
def test_text_has_the_contrast_that_wcag_aa_asks_for(theme: str, ink: str) -> None:
    colours = tokens(theme)
    contrasts = {ground: contrast(colours[ink], colours[ground]) for ground in GROUNDS}
    assert min(contrasts.values()) >= 4.5, contrasts
