"""The page where other machines reach it, as on a Space: nobody says who they are, and folders cannot be named."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from moe_cap.queue import State
from tests.web.conftest import Site, fire_at_every_function, start_site, stop_site

pytestmark = pytest.mark.web


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    started = start_site(tmp_path_factory.mktemp("public-site"), MOE_CAP_WORKER="0", MOE_CAP_ALLOW_FOLDERS="0")
    yield started
    stop_site(started)


def test_visitors_of_a_public_page_cannot_cancel(page: Page, site: Site) -> None:
    waits = site.queue.submit({"model": "a/b"}, request_id="feed0001")
    fire_at_every_function(site, {"id": waits.id})
    page.goto(f"{site.url}/?tab=queue")
    card = page.locator(f'[data-id="{waits.id}"]')
    expect(card).to_contain_text("pending")
    assert page.locator("[data-cancel]").count() == 0
    card.evaluate("(card) => card.append(Object.assign(document.createElement('button'), {id: 'made-up'}))")
    page.evaluate(f"Object.assign(document.getElementById('made-up').dataset, {{cancel: '{waits.id}', sure: 'yes'}})")
    page.locator("#made-up").dispatch_event("click")
    fire_at_every_function(site, {"id": waits.id})  # whatever the click set off was answered meanwhile
    assert site.queue.get(waits.id).state is State.PENDING


def test_the_form_of_a_public_page_begins_without_a_model(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?tab=submit")
    model = page.locator("#cap-field-model textarea, #cap-field-model input")
    expect(model).to_have_value("")
    expect(page.locator(".cap-preflight")).to_contain_text("Name a model of the Hub")
    expect(page.locator(".cap-form")).not_to_contain_text("cap-tiny-moe")
    page.click("#cap-check")
    expect(page.locator("#cap-error-model")).to_have_text("Fill this in.")
