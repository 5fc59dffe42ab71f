"""The application as programs meet it: four public functions, everything else private."""

from types import SimpleNamespace

import httpx
import pytest

from tests.web.conftest import Site

pytestmark = pytest.mark.web


def call(site: Site, name: str, *arguments: object) -> SimpleNamespace:
    """Call a public function the way gradio_client does."""
    address = f"{site.url}/gradio_api/call/{name}"
    event = httpx.post(address, json={"data": list(arguments)}, timeout=60).json()["event_id"]
    state, data = httpx.get(f"{address}/{event}", timeout=60).text.strip().split("\n")[-2:]
    return SimpleNamespace(state=state.removeprefix("event: "), data=data.removeprefix("data: "))


def test_only_four_functions_are_public(site: Site) -> None:
    described = httpx.get(f"{site.url}/gradio_api/info", timeout=60).json()
    assert set(described["named_endpoints"]) == {"/board", "/result", "/queue", "/submit"}
    assert described["unnamed_endpoints"] == {}


def test_a_program_reads_the_board(site: Site) -> None:
    answer = call(site, "board", "dbrx", "reported")
    assert answer.state == "complete"
    assert answer.data.count('"model": "DBRX"') == 6


def test_a_program_submits_once_and_hears_of_the_first(site: Site) -> None:
    body = {"model": "./assets/cap-tiny-moe", "seed": 7}
    assert call(site, "submit", body).state == "complete"
    assert call(site, "submit", body).state == "error"
    assert call(site, "submit", {**body, "repeats": 0}).state == "error"
    assert call(site, "queue").data.count('"seed": 7') == 1


def test_the_page_has_analytics_off_and_names_no_other_host(site: Site) -> None:
    page = httpx.get(site.url, timeout=60).text
    assert '"analytics_enabled":false' in page.replace(" ", "")
    assert "cdnjs" not in page
    assert "fonts.googleapis" not in page
