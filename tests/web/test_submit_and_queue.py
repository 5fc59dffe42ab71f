"""Handing in a system and watching it, without a worker: the test is the worker."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from moe_cap.queue import Progress, State
from tests.web.conftest import FAIL_ONCE, Site, fire_at_every_function, start_site, stop_site

pytestmark = pytest.mark.web


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of its own, since these tests write to the queue."""
    started = start_site(tmp_path_factory.mktemp("queue-site"), MOE_CAP_WORKER="0")
    yield started
    stop_site(started)


@pytest.fixture(autouse=True)
def empty_queue(site: Site) -> None:
    for request in site.queue.requests():
        if request.state in {State.PENDING, State.RUNNING}:
            site.queue.cancel(request.id)


def open_form(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?tab=submit")
    page.wait_for_selector("#cap-submit")
    expect(page.locator("#cap-field-model textarea, #cap-field-model input")).to_have_value("./assets/cap-tiny-moe")


def fill(page: Page, name: str, value: str) -> None:
    field = page.locator(f"#cap-field-{name} textarea, #cap-field-{name} input")
    field.fill(value)
    field.blur()


def send(page: Page, state: str) -> str:
    page.click("#cap-submit")
    panel = page.locator(f'.cap-preflight[data-state="{state}"]')
    expect(panel).to_be_visible()
    return panel.inner_text()


def ids(site: Site) -> set[str]:
    return {request.id for request in site.queue.requests()}


def test_a_wrong_field_gets_its_message_beside_it_and_nothing_is_stored(page: Page, site: Site) -> None:
    before = ids(site)
    open_form(page, site)
    fill(page, "concurrency", "1, many")
    fill(page, "output_tokens", "1")
    send(page, "wrong")
    expect(page.locator(".cap-preflight")).to_contain_text("2 fields")  # the answer to the first field came before it
    expect(page.locator("#cap-error-concurrency")).to_have_text("Give whole numbers between commas, like 1, 4, 16.")
    expect(page.locator("#cap-error-output_tokens")).to_contain_text("greater than or equal to 2")
    fill(page, "concurrency", "1")
    fill(page, "output_tokens", "32")
    fill(page, "model", "./no/such/folder")
    assert "Nothing was stored" in send(page, "wrong")
    expect(page.locator("#cap-error-model .cap-error")).to_be_visible()
    assert ids(site) == before


def test_the_preflight_answers_by_itself_when_a_field_is_left(page: Page, site: Site) -> None:
    open_form(page, site)
    fill(page, "concurrency", "1, 2")
    panel = page.locator('.cap-preflight[data-state="ready"]')
    expect(panel).to_contain_text("Takes about")
    expect(panel).to_contain_text("qwen3_moe")


def test_a_good_submission_waits_and_a_second_one_is_told_of_the_first(page: Page, site: Site) -> None:
    open_form(page, site)
    fill(page, "concurrency", "1, 2, 3")
    assert "waits for a worker" in send(page, "stored")
    (stored,) = site.queue.requests(State.PENDING)
    assert stored.submission["concurrency"] == [1, 2, 3]
    said = send(page, "duplicate")
    assert stored.id in said
    assert "pending" in said
    assert len(site.queue.requests(State.PENDING)) == 1
    page.click("#cap-open-queue")
    expect(page.locator(f'[data-id="{stored.id}"]')).to_contain_text("./assets/cap-tiny-moe")


def test_a_worker_with_certain_hardware_can_be_asked_for(page: Page, site: Site) -> None:
    open_form(page, site)
    page.get_by_role("button", name="More").click()
    expect(page.locator("#cap-field-num_requests textarea, #cap-field-num_requests input")).to_have_value("")
    fill(page, "accuracy_limit", "20")
    chooser = page.locator("#cap-field-hardware input")
    chooser.fill("H100 SXM")
    page.get_by_role("option", name="NVIDIA H100 SXM5").click()
    assert "waits for a worker" in send(page, "stored")
    (stored,) = site.queue.requests(State.PENDING)
    assert (stored.submission["hardware"], stored.submission["accuracy_limit"]) == ("h100-sxm-80gb", 20)


def test_the_queue_shows_progress_and_the_reason_of_a_failure_as_they_come(page: Page, site: Site) -> None:
    body = {"model": "./assets/cap-tiny-moe", "engine": "transformers", "precision": "int8"}
    stored = site.queue.submit(body, request_id="feed0001")
    page.goto(f"{site.url}/?tab=queue")
    card = page.locator(f'[data-id="{stored.id}"]')
    expect(card).to_contain_text("pending")
    running = site.queue.claim("worker-7")
    assert running is not None
    running = site.queue.heartbeat(
        running, Progress("timing, 4 in flight", 0.42, 83.0, ("line one", "<b>line two</b>"))
    )
    expect(card).to_contain_text("timing, 4 in flight")
    expect(card.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "42")
    for text in ("about 83 s left", "attempt 1", "on worker-7", "<b>line two</b>"):
        expect(card).to_contain_text(text)
    site.queue.fail(running, "The model needs 61.1 GB, this machine has 25.3 GB.", retry=False)
    expect(card.locator(".cap-alert")).to_have_text("The model needs 61.1 GB, this machine has 25.3 GB.")
    expect(card).to_contain_text("failed")


def test_a_waiting_request_can_be_cancelled_after_a_second_look(page: Page, site: Site) -> None:
    stored = site.queue.submit({"model": "./assets/cap-tiny-moe", "precision": "int4"}, request_id="feed0002")
    page.goto(f"{site.url}/?tab=queue")
    button = page.locator(f'[data-cancel="{stored.id}"]')
    button.click()
    expect(button).to_have_text("Really cancel")
    assert site.queue.get(stored.id).state is State.PENDING
    button.click()
    expect(page.locator(f'[data-id="{stored.id}"] .cap-badge')).to_have_text("cancelled")
    assert site.queue.get(stored.id).state is State.CANCELLED


def test_the_page_takes_back_what_waits_and_leaves_alone_what_runs(site: Site) -> None:
    for request_id in ("feed0003", "feed0004"):
        site.queue.submit({"model": "./assets/cap-tiny-moe", "seed": request_id}, request_id=request_id)
    running = site.queue.claim("worker-7", lambda request: request.id == "feed0003")
    assert running is not None
    for request_id in ("feed0003", "feed0004"):
        fire_at_every_function(site, {"id": request_id})
    assert site.queue.get("feed0003").state is State.RUNNING
    assert site.queue.get("feed0004").state is State.CANCELLED


def test_a_change_of_the_queue_leaves_the_focus_and_is_read_out_by_its_stage(page: Page, site: Site) -> None:
    site.queue.submit({"model": "./assets/cap-tiny-moe", "precision": "fp32"}, request_id="feed0005")
    running = site.queue.claim("worker-7")
    assert running is not None
    site.queue.submit({"model": "./assets/cap-tiny-moe"}, request_id="feed0006")
    page.goto(f"{site.url}/?tab=queue")
    page.locator('[data-cancel="feed0006"]').focus()
    site.queue.heartbeat(running, Progress("tracing", 0.5, 9.0, ("line one",)))
    expect(page.locator("#cap-queue [role=status]")).to_have_text("./assets/cap-tiny-moe: tracing")
    expect(page.locator('[data-cancel="feed0006"]')).to_be_focused()


def test_a_queue_that_could_not_be_fetched_is_fetched_again(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/?tab=queue")
    page.wait_for_selector(".cap-queue[data-live]")
    page.evaluate(FAIL_ONCE, "api/queue.html")
    site.queue.submit({"model": "./assets/cap-tiny-moe"}, request_id="feed0007")
    expect(page.locator('[data-id="feed0007"]')).to_contain_text("pending")
    assert page.evaluate("window.failed") is True
