"""What stays as the visitor left it while the page changes, and what the page tries again."""

import pytest
from playwright.sync_api import Page, expect

from tests.web.conftest import Site
from tests.web.records import make_result

pytestmark = pytest.mark.web


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
