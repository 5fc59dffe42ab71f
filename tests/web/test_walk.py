"""The whole walk with nothing replaced: form, queue, embedded worker, real model, real accuracy, row, radar, page."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from moe_cap.queue import State
from moe_cap.result import parse_result
from tests.web.conftest import Site, start_site, stop_site

pytestmark = [pytest.mark.web, pytest.mark.model, pytest.mark.timeout(600)]
EVALUATED_MS = 480_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server with its own worker and empty stores."""
    started = start_site(tmp_path, MOE_CAP_WORKER="1", MOE_CAP_POLL_S="1")
    yield started
    stop_site(started)


def fill(page: Page, name: str, value: str) -> None:
    page.locator(f"#cap-field-{name} textarea, #cap-field-{name} input").fill(value)


def test_the_shipped_model_goes_from_the_form_to_its_row(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/")
    page.wait_for_selector(".cap-board[data-ready]")
    assert page.locator("[data-cap=count]").inner_text() == "0 rows"
    page.get_by_role("tab", name="Submit").click()
    fill(page, "concurrency", "1, 2")
    fill(page, "input_tokens", "16")
    fill(page, "output_tokens", "8")
    page.get_by_role("button", name="More").click()
    fill(page, "num_requests", "4")
    fill(page, "accuracy_limit", "20")
    page.click("#cap-submit")
    expect(page.locator('.cap-preflight[data-state="stored"]')).to_be_visible()
    page.click("#cap-open-queue")
    card = page.locator(".cap-request")
    expect(card.locator(".cap-state-running")).to_be_visible()
    expect(card.get_by_role("progressbar")).to_be_visible()
    expect(card.locator(".cap-state-finished, .cap-state-failed")).to_be_visible(timeout=EVALUATED_MS)
    (request,) = site.queue.requests()
    assert request.state is State.FINISHED, request.reason

    page.get_by_role("tab", name="Leaderboard").click()
    expect(page.locator("[data-cap=count]")).to_have_text("2 rows")
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    expect(page.locator(".cap-radar header")).to_contain_text("1 selected")
    expect(page.locator(".cap-legend li")).to_have_count(1)
    page.locator('.ag-row[row-index="0"] .ag-cell[col-id="model"] a').click()
    page.wait_for_selector(".cap-heat")
    (result_id,) = request.result_ids
    result = parse_result(site.results.read(result_id))
    main = page.locator("main")
    for text in (result.reproduce or "", "Environment", "S-MBU", "TTFT", "Tokens per expert and layer"):
        expect(main).to_contain_text(text)
    table = pd.read_parquet(site.folder / "results" / "snapshots" / "leaderboard.parquet")
    assert table["result"].tolist() == [result_id, result_id]
