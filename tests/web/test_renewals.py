"""What stays as the visitor left it while the page changes, and what the page tries again."""

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import FAIL_ONCE, Site
from tests.web.records import make_result
from tests.web.test_leaderboard import open_board

pytestmark = pytest.mark.web


def test_a_ticked_filter_keeps_the_focus_and_its_place_also_when_rows_arrive(page: Page, site: Site) -> None:
    open_board(page, site)
    page.locator('[data-field="precision"] summary').focus()
    page.keyboard.press("Enter")
    box = page.locator('[data-field="precision"] input[value="int8"]')
    page.locator('[data-field="precision"] .cap-pop').evaluate("list => (list.style.maxHeight = '40px')")
    box.focus()
    scrolled = box.evaluate("box => (window.ticked = box).closest('.cap-pop').scrollTop")
    assert scrolled > 0
    page.keyboard.press("Space")
    expect(page.locator('[data-field="precision"] summary')).to_have_text("Precision: int8")
    expect(box).to_be_focused()
    assert box.evaluate("box => box === window.ticked")
    assert box.evaluate("box => box.closest('.cap-pop').scrollTop") == scrolled
    site.publish(make_result("focus-moe", precision="fp32"))
    expect(page.locator("[data-cap=news]")).to_contain_text("New: focus-moe")
    expect(box).to_be_focused()
    expect(box).to_be_checked()


def test_a_control_of_the_radar_keeps_the_focus(page: Page, site: Site) -> None:
    open_board(page, site, "?q=demo-moe")
    page.locator(".cap-axes summary").click()
    page.locator('[name="cap-axis"][value="ttft_s_p50"]').focus()
    page.keyboard.press("Space")
    expect(page.locator(".cap-axis")).to_have_count(4)
    expect(page.locator('[name="cap-axis"][value="ttft_s_p50"]')).to_be_focused()


def test_a_board_that_could_not_be_fetched_is_fetched_again(page: Page, site: Site) -> None:
    open_board(page, site)
    page.evaluate(FAIL_ONCE, "api/grid.json")
    site.publish(make_result("again-moe", precision="int4"))
    expect(page.locator("[data-cap=news]")).to_contain_text("New: again-moe")
    assert page.evaluate("window.failed") is True


@pytest.mark.parametrize("copies", [True, False])
def test_without_a_clipboard_the_command_is_copied_or_left_selected(page: Page, site: Site, copies: bool) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.goto(f"{site.url}/result?id={make_result().id}")
    if not copies:
        page.evaluate("document.execCommand = () => false")
    button = page.locator("[data-cap-copy]")
    button.click()
    expect(button).to_have_text("Copied" if copies else "Selected: copy it by hand")
    assert page.evaluate("getSelection().toString()") == "moe-cap evaluate request.json --seed 0"
