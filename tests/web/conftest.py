"""A real server and a real browser, one of each for all tests of this folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from moe_cap.queue import Queue
from moe_cap.reported import read_reported
from moe_cap.result import Result
from moe_cap.results import ResultStore
from moe_cap.store import open_store
from tests.web.records import HOSTILE, make_point, make_result

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
LEAVING = ("AbortError: signal is aborted", "Connection errored out")
"""What Gradio's own stream says when a page is left while it listens."""
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 60_000
"""Of any one wait; this is no budget but what a busy machine may need."""
FAIL_ONCE = """(part) => {
    const real = window.fetch;
    window.fetch = (address, ...more) => {
        if (window.failed || !String(address).startsWith(part)) return real(address, ...more);
        window.failed = true;
        return Promise.reject(new TypeError("the server is away"));
    };
}"""
"""Lets the next fetch of an address fail, as a lost connection does, without the browser's own complaint."""
expect.set_options(timeout=TIMEOUT_MS)


@dataclass(frozen=True)
class Site:
    """A running server and the stores behind it."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def results(self) -> ResultStore:
        return ResultStore(open_store(self.folder / "results"))

    @property
    def queue(self) -> Queue:
        return Queue(open_store(self.folder / "queue"), lease_s=600)

    def publish(self, result: Result) -> None:
        month = f"{result.created_at:%Y-%m}"
        self.results.publish(result.to_json(), result_id=result.id, year_month=month)


def start_site(folder: Path, **environ: str) -> Site:
    """`python app.py` on a port of its own choice, over the stores in `folder`."""
    settings = {
        "MOE_CAP_QUEUE": str(folder / "queue"),
        "MOE_CAP_RESULTS": str(folder / "results"),
        "MOE_CAP_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        **environ,
    }
    with (folder / "said.json").open("wb") as said, (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", "0", "--json"],
            cwd=ROOT,
            env=os.environ | settings,
            stdout=said,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            url = json.loads((folder / "said.json").read_bytes())["url"]
            httpx.get(f"{url}/healthz", timeout=60).raise_for_status()
        except (ValueError, httpx.HTTPError):
            time.sleep(0.2)
        else:
            return Site(url, folder, process)
    raise AssertionError(f"the server did not come up: {(folder / 'server.log').read_text()}")


def stop_site(site: Site) -> None:
    os.killpg(site.process.pid, signal.SIGTERM)
    site.process.wait(timeout=40)


def fire_at_every_function(site: Site, event: Mapping[str, object]) -> None:
    """Hand an event to each function of the page, whatever it shows, as a script can, and wait for the answers."""
    session = uuid4().hex
    functions = httpx.get(f"{site.url}/config", timeout=60).json()["dependencies"]
    with httpx.Client(base_url=f"{site.url}/gradio_api", timeout=60) as client:
        for function in functions:
            body = {"data": [], "event_data": event, "fn_index": function["id"], "session_hash": session}
            client.post("/queue/join", json=body)
        answers = client.get("/queue/data", params={"session_hash": session}).text
    assert answers.count("process_completed") == len(functions)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The paper's rows, one measured system, one invalid one and one with a hostile name; no worker."""
    folder = tmp_path_factory.mktemp("site")
    store = ResultStore(open_store(folder / "results"))
    broken = make_result("broken-moe", points=(make_point(2, 99_999.0, invalid=("S-MBU is above 1",)),))
    hostile = make_result(HOSTILE, note=f"a note with {HOSTILE}")
    for result in (*read_reported(), make_result(), broken, hostile):
        store.publish(result.to_json(), result_id=result.id, year_month=f"{result.created_at:%Y-%m}")
    started = start_site(folder, MOE_CAP_WORKER="0")
    yield started
    stop_site(started)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.fail("no Chromium on the PATH; tests/install-browser installs it")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


class Visit:
    """One visitor's page, and everything that must not happen on it."""

    def __init__(self, browser: Browser, **options: object) -> None:
        self.context = browser.new_context(**options)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(TIMEOUT_MS)
        self.wrong: list[str] = []
        self.page.on("console", lambda said: said.type in {"error", "warning"} and self._note(said.text))
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("dialog", lambda dialog: self._note(f"dialog: {dialog.message}"))
        self.page.route("**/*", self._stay_here)

    def _note(self, text: str) -> None:
        if not any(harmless in text for harmless in LEAVING):
            self.wrong.append(text)

    def _stay_here(self, route: object) -> None:
        url = route.request.url  # type: ignore[attr-defined]
        if urlsplit(url).hostname not in {"127.0.0.1", None}:
            self._note(f"request to another host: {url}")
            route.abort()  # type: ignore[attr-defined]
            return
        route.continue_()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.context.close()
        assert self.wrong == [], self.wrong


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A wide, light page; at the end nothing was logged as wrong and no other host was asked."""
    opened = Visit(browser, viewport={"width": 1500, "height": 950}, color_scheme="light", accept_downloads=True)
    yield opened
    opened.close()


@pytest.fixture
def page(visit: Visit) -> Page:
    return visit.page
