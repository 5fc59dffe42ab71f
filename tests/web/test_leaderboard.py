"""The leaderboard as a visitor meets it."""

import re

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.conftest import Site, Visit
from tests.web.records import HOSTILE, make_result

pytestmark = pytest.mark.web

ROWS = 33 + 2 + 1 + 2  # the paper's, two points measured, one invalid, two hostile
READY = ".cap-board[data-ready]"


def open_board(page: Page, site: Site, query: str = "") -> None:
    page.goto(f"{site.url}/{query}")
    page.wait_for_selector(READY)


def column(page: Page, field: str) -> list[str]:
    """Texts of one column, in the order on screen, of the rows that are drawn."""
    cells = page.locator(f'.cap-grid .ag-row .ag-cell[col-id="{field}"]')
    script = "cells => cells.map(c => [+c.closest('.ag-row').getAttribute('row-index'), c.innerText.trim()])"
    return [text for _, text in sorted(cells.evaluate_all(script))]


def count(page: Page) -> str:
    return page.locator("[data-cap=count]").inner_text()


def test_the_page_opens_with_rows_and_a_radar(page: Page, site: Site) -> None:
    open_board(page, site)
    assert count(page) == f"{ROWS} rows"
    expect(page.locator(".cap-radar .cap-shape")).to_have_count(3)
    assert {"demo-moe", "DBRX"} <= set(column(page, "model"))


def test_uncertainty_and_warnings_are_seen_and_level_rows_are_called_a_tie(page: Page, site: Site) -> None:
    open_board(page, site, "?q=moe")
    assert "640.00 ± 2.50" in column(page, "output_tokens_per_s")
    assert "93.00 ± 1.00" in column(page, "accuracy")
    assert page.locator('.cap-warned[aria-label="Warning: a note"]').count() > 0
    tips = page.evaluate("""() => {
        const { api } = window.capBoard.current;
        const tip = api.getColumnDef("output_tokens_per_s").tooltipValueGetter;
        const data = (name, value, half, valid = true) => ({ data: { model: name, output_tokens_per_s: value,
            output_tokens_per_s_ci95: half, valid, missing: {} } });
        const rows = [data("best", 100, 3), data("level", 95, 3), data("below", 90, 3), data("invalid", 200, 3, false)];
        const all = { forEachNodeAfterFilter: (each) => rows.forEach(each) };
        return rows.map((row) => tip({ ...row, value: row.data.output_tokens_per_s, api: all }).includes("a tie"));
    }""")
    assert tips == [False, True, False, False]


def test_search_narrows_and_says_when_nothing_matches(page: Page, site: Site) -> None:
    open_board(page, site)
    page.fill("[data-cap=search]", "tensorrt dbrx")
    expect(page.locator("[data-cap=count]")).to_have_text(f"6 of {ROWS} rows")
    page.fill("[data-cap=search]", "no such thing")
    expect(page.locator(".cap-empty")).to_be_visible()
    assert count(page) == f"0 of {ROWS} rows"
    page.click("[data-cap=clear]")
    expect(page.locator("[data-cap=count]")).to_have_text(f"{ROWS} rows")


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_unknown_values_and_invalid_rows_are_last_in_both_directions(page: Page, site: Site, direction: str) -> None:
    page.set_viewport_size({"width": 1500, "height": 3000})
    open_board(page, site, f"?sort=purchase_usd:{direction}")
    page.evaluate("document.querySelector('.cap-grid').style.height = '2600px'")
    page.wait_for_function(f"document.querySelectorAll('.cap-grid .ag-row[row-index=\"{ROWS - 1}\"]').length")
    costs = column(page, "purchase_usd")
    known = [float(text) for text in costs if text != "n/a"]
    assert known == sorted(known, reverse=direction == "desc")
    assert costs[len(known) :] == ["n/a"] * (ROWS - len(known))
    assert column(page, "model")[-1].startswith("broken-moe")


def test_the_header_sorts_best_first_and_the_invalid_row_is_never_first(page: Page, site: Site) -> None:
    open_board(page, site)
    page.click('.ag-header-cell[col-id="output_tokens_per_s"] .ag-header-cell-text')
    expect(page.locator('.ag-row[row-index="0"] .ag-cell[col-id="output_tokens_per_s"]')).to_have_text("2,184.96")
    assert "sort=output_tokens_per_s%3Adesc" in page.url


def test_facets_filter_and_the_address_restores_the_view(page: Page, site: Site) -> None:
    open_board(page, site)
    page.locator('[data-field="engine"] summary').click()
    page.locator('[data-field="engine"] label', has_text="vLLM").click()
    expect(page.locator("[data-cap=count]")).to_have_text(f"1 of {ROWS} rows")
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    page.wait_for_function("location.search.includes('row=')")
    page.goto(page.url)
    page.wait_for_selector(READY)
    assert count(page) == f"1 of {ROWS} rows"
    expect(page.locator(".cap-radar header")).to_contain_text("1 selected")
    expect(page.locator(".cap-legend li")).to_contain_text(["vLLM"])


def test_the_radar_holds_five_rows_and_shows_raw_values_with_units(page: Page, site: Site) -> None:
    open_board(page, site, "?sort=purchase_usd:asc")
    for index in range(6):
        page.locator(f'.ag-row[row-index="{index}"] .ag-checkbox-input').click()
    expect(page.locator(".cap-radar header")).to_contain_text("5 selected")
    expect(page.locator(".cap-radar .cap-shape")).to_have_count(5)
    page.locator(".cap-mark").first.hover()
    expect(page.locator(".cap-tip").first).to_be_visible()
    expect(page.locator(".cap-tip").first).to_contain_text("kUSD")


def test_adding_a_system_moves_no_other_one(page: Page, site: Site) -> None:
    open_board(page, site, "?q=dbrx")
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    expect(page.locator(".cap-radar .cap-shape")).to_have_count(1)
    alone = page.locator(".cap-radar .cap-shape").first.get_attribute("points")
    page.locator('.ag-row[row-index="3"] .ag-checkbox-input').click()
    expect(page.locator(".cap-radar .cap-shape")).to_have_count(2)
    assert page.locator(".cap-radar .cap-shape").first.get_attribute("points") == alone


def test_axes_can_be_added_and_the_cost_basis_changed(page: Page, site: Site) -> None:
    open_board(page, site, "?q=demo-moe")
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    page.locator(".cap-axes summary").click()
    page.get_by_role("radio", name="Owner").check()
    expect(page.locator(".cap-legend li").first).to_contain_text("0.52 USD/Mtok")
    page.locator(".cap-axes").get_by_label("S-MBU (decode)").check()
    expect(page.locator(".cap-axis")).to_have_count(4)
    page.reload()
    expect(page.locator(".cap-axis")).to_have_count(4)


def test_a_missing_value_tells_why_under_the_pointer(page: Page, site: Site) -> None:
    open_board(page, site, "?q=table&sort=engine:desc")
    page.fill("[data-cap=search]", "Qwen1.5")
    page.locator('.ag-row[row-index="0"] .ag-cell[col-id="engine"]').hover()
    expect(page.locator(".ag-tooltip")).to_have_text("Table 4 does not state the engine")


def test_columns_can_be_chosen_and_stay_chosen(page: Page, site: Site) -> None:
    open_board(page, site)
    page.get_by_text("Columns", exact=True).click()
    page.locator(".cap-columns label", has_text="Parameters").click()
    expect(page.locator('.ag-header-cell[col-id="parameters_total"]')).to_be_visible()
    page.reload()
    page.wait_for_selector(READY)
    assert page.evaluate("capBoard.current.api.getColumn('parameters_total').isVisible()") is True


def test_the_grid_is_used_with_the_keyboard(page: Page, site: Site) -> None:
    open_board(page, site, "?q=demo-moe")
    page.locator('.ag-header-cell[col-id="model"]').focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator(".cap-radar header")).to_contain_text("1 selected")
    page.keyboard.press("Enter")
    page.wait_for_url("**/result?id=*")


def test_dark_and_light_follow_the_system_and_then_the_choice(browser: Browser, site: Site) -> None:
    visit = Visit(browser, color_scheme="dark")
    open_board(visit.page, site)
    background = "getComputedStyle(document.body).backgroundColor"
    assert visit.page.evaluate(background) == "rgb(15, 16, 20)"
    grid = "getComputedStyle(document.querySelector('.ag-root-wrapper')).backgroundColor"
    assert visit.page.evaluate(grid) == "rgb(23, 24, 29)"
    visit.page.click("[data-cap-theme]")
    assert visit.page.evaluate(background) == "rgb(246, 246, 243)"
    visit.page.reload()
    visit.page.wait_for_selector(READY)
    assert visit.page.evaluate(background) == "rgb(246, 246, 243)"
    visit.close()


def test_a_narrow_screen_has_no_sideways_scroll(browser: Browser, site: Site) -> None:
    visit = Visit(browser, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    open_board(visit.page, site)
    for tab in ("Leaderboard", "Submit", "Queue", "About"):
        visit.page.get_by_role("tab", name=tab).click()
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 390, tab
    visit.page.goto(f"{site.url}/result?id={make_result().id}")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
    visit.close()


def test_hostile_names_are_text_everywhere(page: Page, site: Site) -> None:
    open_board(page, site, "?q=onerror")
    assert column(page, "model") == [HOSTILE, HOSTILE]
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    expect(page.locator(".cap-legend li b")).to_have_text([HOSTILE])
    page.locator('.ag-row[row-index="0"] .ag-cell[col-id="model"] a').click()
    expect(page.locator("h1").last).to_have_text(HOSTILE)
    expect(page.locator(".cap-alert")).to_contain_text(HOSTILE)
    assert page.locator("img[src=x]").count() == 0


def test_reported_rows_link_to_their_source(page: Page, site: Site) -> None:
    open_board(page, site, "?q=dbrx&column=model&column=kind")
    cite = page.locator('.ag-row[row-index="0"] .ag-cell[col-id="kind"] a')
    expect(cite).to_have_attribute("href", "https://arxiv.org/abs/2412.07067v1")
    expect(cite).to_have_attribute("rel", "noopener noreferrer")


def test_a_new_result_appears_without_reload_and_can_be_drawn_and_opened(page: Page, site: Site) -> None:
    open_board(page, site)
    page.evaluate("window.stillHere = true")
    site.publish(make_result("late-moe", precision="int4"))
    expect(page.locator("[data-cap=news]")).to_contain_text("New: late-moe")
    assert page.evaluate("window.stillHere") is True
    page.fill("[data-cap=search]", "late-moe")
    page.locator('.ag-row[row-index="0"] .ag-checkbox-input').click()
    expect(page.locator(".cap-legend li")).to_contain_text(["late-moe"])
    page.locator('.ag-row[row-index="0"] .ag-cell[col-id="model"] a').click()
    expect(page.locator("h1").last).to_have_text("late-moe")


def test_the_view_and_the_whole_table_can_be_downloaded(page: Page, site: Site) -> None:
    open_board(page, site, "?q=dbrx")
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as view:
        page.click("[data-cap=csv]")
    assert len(pd.read_csv(view.value.path())) == 6
    with page.expect_download() as whole:
        page.locator(".cap-files a", has_text="Parquet").click()
    assert whole.value.suggested_filename == "moe-cap.parquet"
    assert "output_tokens_per_s" in pd.read_parquet(whole.value.path()).columns


def test_a_result_page_has_every_number_with_unit_source_and_reason(page: Page, site: Site) -> None:
    result = make_result()
    page.goto(f"{site.url}/result?id={result.id}")
    text = page.locator("main").inner_text()
    assert re.search(r"Output\s.*210\.00 tok/s", text, re.S)
    assert "± 2.50 tok/s (95 %)" in text
    assert "0.046 ms" in text  # two digits where fixed ones would say 0.05 or 0
    assert "this machine tells no power" in text
    assert "against the measured peak" in text
    assert "moe-cap evaluate request.json --seed 0" in text
    assert "torch" in text
    assert page.locator('.cap-source[title^="derived"]').count() > 0
    expect(page.locator(".cap-heat rect")).to_have_count(1 + 3 * 8)
    expect(page.locator(".cap-dot")).to_have_count(3)
    with page.expect_download() as record:
        page.get_by_text("Download JSON").click()
    assert record.value.path().read_bytes() == result.to_json()


def test_an_invalid_result_says_which_rule_it_broke(page: Page, site: Site) -> None:
    open_board(page, site, "?q=broken-moe")
    expect(page.locator('.ag-row[row-index="0"] .cap-bad')).to_have_text("invalid")
    page.locator('.ag-row[row-index="0"] .ag-cell[col-id="model"] a').click()
    expect(page.locator(".cap-alert").first).to_contain_text("S-MBU is above 1")


def test_an_invalid_row_is_told_apart_on_the_radar_and_in_the_view_as_csv(page: Page, site: Site) -> None:
    open_board(page, site, f"?q=-moe%20transformers&row={make_result('broken-moe').id}-0")
    legend = page.locator(".cap-legend li").first
    expect(legend.locator(".cap-bad")).to_have_text("invalid")
    expect(legend).to_contain_text("Invalid: S-MBU is above 1", ignore_case=True)
    expect(page.locator(".cap-shape.cap-broken, .cap-point.cap-broken").first).to_be_attached()
    page.get_by_text("Download", exact=True).click()
    with page.expect_download() as view:
        page.click("[data-cap=csv]")
    table = pd.read_csv(view.value.path()).set_index("Model")
    assert table.loc["broken-moe", "Validity"] == "invalid: S-MBU is above 1"
    assert set(table.loc["demo-moe", "Validity"]) == {"valid"}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [("vLLM", "vLLM"), ("vllm", "vLLM"), ("transformers", "Transformers"), ("Transformers", "Transformers")],
)
def test_an_address_finds_an_engine_by_its_title_and_by_its_id(page: Page, site: Site, asked: str, shown: str) -> None:
    open_board(page, site, f"?engine={asked}")
    assert set(column(page, "engine")) == {shown}
    expect(page.locator('[data-field="engine"] summary')).to_have_text(f"Engine: {shown}")
