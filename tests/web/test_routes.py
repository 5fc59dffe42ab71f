"""The plain HTTP beside the page, and what the page knows, without a browser."""

import gzip
import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from moe_cap.cli.serve import settings_for
from moe_cap.errors import BusyError
from moe_cap.queue import Progress, Queue, State
from moe_cap.reported import read_reported
from moe_cap.results import ResultStore
from moe_cap.store import MemoryStore
from moe_cap.web import routes
from moe_cap.web.api import build_api
from moe_cap.web.queue import render_queue
from moe_cap.web.routes import build_routes
from moe_cap.web.security import HEADERS, SecureHeaders
from moe_cap.web.snapshot import Mirror
from moe_cap.web.submit import Desk
from tests.backend.conftest import wait_for
from tests.web.records import HOSTILE, make_result

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class FlakyResults(ResultStore):
    """A store that can be away."""

    away = False

    def revision(self) -> str:
        if self.away:
            raise BusyError("the Hub does not answer", wait_s=1)
        return super().revision()


@pytest.fixture
def results() -> FlakyResults:
    store = FlakyResults(MemoryStore())
    for result in (*read_reported(), make_result()):
        store.publish(result.to_json(), result_id=result.id, year_month="2026-11")
    return store


@pytest.fixture
def queue() -> Queue:
    return Queue(MemoryStore(), lease_s=600)


@pytest.fixture
def mirror(results: FlakyResults, queue: Queue) -> Mirror:
    made = Mirror(results, queue, now=lambda: NOON, every_s=60)
    made.look()
    return made


@pytest.fixture
def client(mirror: Mirror) -> Iterator[TestClient]:
    app = FastAPI()
    app.include_router(build_routes(mirror, may_cancel=True))
    app.add_middleware(SecureHeaders)
    with TestClient(app) as made:
        yield made


def test_the_grid_is_compressed_and_revalidated(client: TestClient) -> None:
    first = client.get("/api/grid.json")
    assert first.headers["content-encoding"] == "gzip"
    assert first.json()["count"] == 35
    again = client.get("/api/grid.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = client.get("/api/grid.json", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == first.json()


@pytest.mark.parametrize("file_format", ["csv", "parquet", "json"])
def test_the_table_comes_in_every_format(client: TestClient, file_format: str) -> None:
    answer = client.get(f"/api/board.{file_format}")
    assert answer.status_code == 200
    assert len(answer.content) > 1000


def test_the_radar_draws_what_is_asked_and_ignores_what_it_does_not_know(client: TestClient) -> None:
    rows = client.get("/api/grid.json").json()["values"]["row"]
    asked = {"row": [rows[3], rows[4]], "cost": "owner", "axis": ["ttft_s_p50", "nonsense"]}
    page = client.get("/api/radar.html", params=asked).text
    assert "2 selected" in page
    assert page.count('class="cap-axis"') == 4
    assert 'value="owner" checked' in page
    assert client.get("/api/radar.html", params={"row": "nope", "cost": "free"}).status_code == 200


def test_a_record_is_given_byte_for_byte(client: TestClient) -> None:
    result = make_result()
    answer = client.get(f"/api/results/{result.id}?download=1")
    assert answer.content == result.to_json()
    assert answer.headers["content-disposition"] == f'attachment; filename="moe-cap-{result.id}.json"'


@pytest.mark.parametrize(
    "path",
    ["/api/results/nope", "/result?id=nope", "/api/board.exe", "/cap/nope.js", "/cap/../app.py", "/cap/%2e%2e/app.py"],
)
def test_what_is_not_there_is_404(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_every_answer_carries_the_policy(client: TestClient) -> None:
    for path in ("/healthz", "/api/grid.json", "/result?id=nope"):
        headers = client.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS


def test_an_id_from_the_address_is_escaped(client: TestClient) -> None:
    page = client.get("/result", params={"id": HOSTILE}).text
    assert HOSTILE not in page
    assert "&lt;img" in page


def test_static_files_are_cached_for_ever_under_an_address_with_their_hash(client: TestClient) -> None:
    answer = client.get("/cap/vendor/ag-grid-community.min.js")
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/javascript")


def test_static_files_of_a_linked_checkout_are_served(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "static").symlink_to(routes.STATIC)
    monkeypatch.setattr(routes, "STATIC", tmp_path / "static")
    routes._static_names.cache_clear()
    assert client.get("/cap/cap.css").status_code == 200


def test_names_that_visitors_make_up_are_not_kept(client: TestClient) -> None:
    before = routes._static.cache_info().currsize
    for name in ("nope.js", "..%2Fstyle.py", "vendor%2F..%2Fcap.css", "%00"):
        assert client.get(f"/cap/{name}").status_code == 404
    assert routes._static.cache_info().currsize == before


@pytest.mark.parametrize(
    ("given", "host", "allowed"),
    [
        ({}, None, True),
        ({}, "localhost", True),
        ({}, "0.0.0.0", False),
        ({}, "192.168.0.2", False),
        ({}, "my-machine", False),
        ({"MOE_CAP_HOST": "::"}, None, False),
        ({"MOE_CAP_HOST": "0.0.0.0"}, "127.0.0.1", True),
        ({"SPACE_ID": "a/b"}, None, False),
        ({"QUEUE_REPO": "a/b"}, None, False),
        ({"MOE_CAP_ALLOW_FOLDERS": "1"}, "0.0.0.0", True),
        ({"MOE_CAP_ALLOW_FOLDERS": "0"}, None, False),
    ],
)
def test_visitors_from_elsewhere_name_no_folders_unless_that_is_set(
    given: dict[str, str], host: str | None, allowed: bool
) -> None:
    assert settings_for(given, host, None, None).allow_folders is allowed


def test_a_store_that_is_away_leaves_the_last_good_snapshot(
    client: TestClient, mirror: Mirror, results: FlakyResults
) -> None:
    results.away = True
    mirror.look()
    health = client.get("/healthz").json()
    assert (health["status"], health["results"]) == ("stale", 19)
    assert health["trouble"] == "the Hub does not answer"
    results.away = False
    mirror.look()
    assert client.get("/healthz").json()["status"] == "ok"


def test_the_mirror_outlives_an_error_that_nobody_expected_and_says_that_it_is_stale(
    results: FlakyResults, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror(results, queue, now=lambda: NOON, every_s=0.01)

    def broken() -> str:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(results, "revision", broken)
        mirror.start(patience_s=60)
        assert mirror.current.trouble == "the stores could not be read (ZeroDivisionError)"
    try:
        wait_for(lambda: mirror.current.trouble is None)
    finally:
        mirror.stop()
    assert len(mirror.current.board.results) == 19


def test_a_record_that_cannot_be_read_is_left_out_and_counted(
    client: TestClient, mirror: Mirror, results: FlakyResults
) -> None:
    results.publish(b'{"schema_version": 99}', result_id="00ff00ff00ff00ff", year_month="2026-11")
    mirror.look()
    health = client.get("/healthz").json()
    assert (health["results"], health["unreadable"]) == (19, 1)


def test_the_version_changes_with_the_queue_and_with_the_results_only(
    client: TestClient, mirror: Mirror, results: FlakyResults, queue: Queue
) -> None:
    before = client.get("/api/version").json()
    mirror.look()
    assert client.get("/api/version").json() == before
    queue.submit({"model": "a/b"}, request_id="feed")
    mirror.look()
    after = client.get("/api/version").json()
    assert after["queue"] != before["queue"]
    assert after["board"] == before["board"]
    late = make_result("late")
    results.publish(late.to_json(), result_id=late.id, year_month="2026-11")
    mirror.look()
    assert client.get("/api/version").json()["board"] != after["board"]


def test_a_slow_store_does_not_hold_the_page_back(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    store, may_answer = FlakyResults(MemoryStore()), threading.Event()
    late = make_result("late")
    store.publish(late.to_json(), result_id=late.id, year_month="2026-11")
    monkeypatch.setattr(store, "revision", lambda: may_answer.wait(60) and "r1")
    mirror = Mirror(store, queue, now=lambda: NOON, every_s=60)
    app = FastAPI()
    app.include_router(build_routes(mirror, may_cancel=True))
    client = TestClient(app)
    mirror.start(patience_s=0.0)
    try:
        assert client.get("/api/grid.json").json()["count"] == 0
        assert client.get(f"/api/results/{late.id}").status_code == 503
        for file_format in ("csv", "parquet", "json"):
            assert client.get(f"/api/board.{file_format}").headers["retry-after"] == "5"
        assert client.get("/result", params={"id": late.id}).status_code == 503
        may_answer.set()
        assert mirror._looked.wait(60)
        assert client.get(f"/api/results/{late.id}").status_code == 200
        assert client.get("/api/grid.json").json()["count"] == len(late.points)
    finally:
        may_answer.set()
        mirror.stop()


def test_programs_are_told_that_the_stores_were_not_read_yet(
    results: FlakyResults, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions: dict[str, Callable[..., object]] = {}
    monkeypatch.setattr(gr, "api", lambda function, api_name: functions.update({api_name: function}))
    mirror = Mirror(results, queue, now=lambda: NOON, every_s=60)
    build_api(mirror, Desk(lambda _: None, queue, mirror))
    for name, arguments in (("board", ()), ("result", ("feed",)), ("queue", ())):
        with pytest.raises(gr.Error, match="not read yet"):
            functions[name](*arguments)
    mirror.look()
    assert len(functions["board"]()) == 35
    with pytest.raises(gr.Error, match="there is no result feed"):
        functions["result"]("feed")
    assert functions["queue"]() == []


def test_bytes_of_a_record_are_kept_once(mirror: Mirror, results: FlakyResults) -> None:
    for result_id, data in results.read_all():
        assert mirror.current.board.records[result_id] is data


def test_measured_results_come_before_reported_ones(mirror: Mirror) -> None:
    kinds = [result.kind for result in mirror.current.board.results.values()]
    assert kinds == ["measured"] + ["reported"] * 18


def test_the_queue_is_told_in_words_and_hostile_text_is_escaped(queue: Queue) -> None:
    queue.submit({"model": HOSTILE}, request_id="feed0001")
    queue.submit({"model": "a/b", "precision": "int4"}, request_id="feed0002")
    running = queue.claim("worker", lambda request: request.id == "feed0002")
    assert running is not None
    queue.heartbeat(running, Progress("timing", 0.5, 200.0, (HOSTILE,)))
    page = render_queue(queue.requests(), may_cancel=True)
    assert HOSTILE not in page
    assert "about 3 min left" in page
    assert 'data-cancel="feed0001"' in page
    assert 'data-cancel="feed0002"' not in page


def sections_of(page: str) -> dict[str, list[str]]:
    """Ids of the cards by section, in the order shown."""
    parts = page.split('data-section="')[1:]
    return {part.partition('"')[0]: re.findall(r'data-id="(\w+)"', part) for part in parts}


def move(store: MemoryStore, request_id: str, was: State, now: State) -> None:
    """What a hand does that moves the file to another state folder."""
    rest = f"{request_id[:2]}/{request_id}.json"
    rev = store.head()
    store.commit({f"{now}/{rest}": store.read(f"{was}/{rest}", rev)}, [f"{was}/{rest}"], rev, "by hand")


def test_requests_that_were_moved_by_hand_are_shown_once_and_where_they_are() -> None:
    store, seconds = MemoryStore(), iter(range(1000, 2000))
    queue = Queue(store, lease_s=600, clock=lambda: float(next(seconds)))
    for request_id in ("feed0001", "feed0002", "feed0003"):
        queue.submit({"model": "a/b", "id": request_id}, request_id=request_id)
    for _ in range(2):
        running = queue.claim("worker")
        assert running is not None
        queue.fail(running, "no room", retry=False)
    move(store, "feed0001", State.FAILED, State.PENDING)
    move(store, "feed0003", State.PENDING, State.CANCELLED)
    page = render_queue(queue.requests(), may_cancel=True)
    assert sections_of(page) == {"running": [], "pending": ["feed0001"], "ended": ["feed0002", "feed0003"]}
    assert "<span>pending <time" not in page


def test_of_the_queue_only_the_stages_of_what_runs_are_read_out(queue: Queue) -> None:
    queue.submit({"model": "a/b"}, request_id="feed0001")
    running = queue.claim("worker")
    assert running is not None
    queue.heartbeat(running, Progress("timing", 0.5, 200.0, ("a line of the log",)))
    page = render_queue(queue.requests(), may_cancel=False)
    (said,) = re.findall(r'role="status"[^>]*>(.*?)<', page)
    assert said == "a/b: timing"
    assert "aria-live" not in page


def test_five_thousand_rows_stay_under_a_megabyte(queue: Queue) -> None:
    store = ResultStore(MemoryStore())
    made = make_result()
    paper = read_reported()
    rows = [made.model_copy(update={"id": f"{index:024x}"}) for index in range(50)]
    for result in (*paper, *rows):
        store.publish(result.to_json(), result_id=result.id, year_month="2026-11")
    mirror = Mirror(store, queue, now=lambda: NOON, every_s=60)
    grid = mirror.look().board.grid
    assert json.loads(gzip.decompress(grid.compressed))["count"] == 33 + 100
    assert len(grid.compressed) / 133 < 200  # bytes a row: 5,000 rows are a megabyte
