"""Servers that we start, with real processes: they come up in time or are gone, and never outlive us."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from moe_cap.errors import EngineCrashedError, EngineStartError, MeasurementError, OutOfMemoryError
from moe_cap.measure.engines import server as server_module
from moe_cap.measure.engines.base import LaunchSpec, Request
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, package_version
from moe_cap.measure.engines.server import HOME, PORT, SCRATCH, Server, clean_environment, first_error, start_server
from moe_cap.measure.load import Rules
from moe_cap.measure.model_files import ModelFiles
from tests.backend.conftest import is_alive, read_pid, wait_for
from tests.measure.odd_server import Ready

CONFIG = json.loads((Path(__file__).parents[2] / "assets/cap-tiny-moe/config.json").read_text())
FILES = ModelFiles("mock", "0", Path("/nowhere"), CONFIG, ())
PATIENT = Rules(max_lag_s=10.0, max_beat_lag_s=10.0)
ODD = Path(__file__).parent / "odd_server.py"
MOCK = ("--ttft-s", "0.01", "--itl-s", "0.002", "--model", "mock")


def spec_of(*argv: str, limit_s: float = 60.0) -> LaunchSpec:
    return LaunchSpec(
        FILES,
        "bf16",
        argv=(sys.executable, *argv),
        ready_url=f"http://127.0.0.1:{PORT}/health",
        start_limit_s=limit_s,
    )


def odd(kind: str, *, limit_s: float = 60.0) -> LaunchSpec:
    return spec_of(str(ODD), kind, PORT, f"{SCRATCH}/worker.pid", limit_s=limit_s)


def mock() -> LaunchSpec:
    return spec_of("-m", "moe_cap.measure.mock_server", "--port", PORT, *MOCK)


class WordTokenizer:
    """Counts as the mock server does."""

    name = "words"
    end_token = prefix_token = 0

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        return [len(word) for word in text.split()]

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        return " ".join("x" * token for token in tokens)


def requests(count: int, output_tokens: int = 4) -> list[Request]:
    return [Request(f"q{index}", (5, 6, 7 + index), output_tokens) for index in range(count)]


class MockEngine(ServerEngine):
    """The mock server as an engine that is launched."""

    name = "mock"

    def version_in(self, home: Path) -> str | None:
        return "1.0" if home == Path(sys.prefix) else None

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        return mock()


ENGINE = MockEngine(PATIENT, lambda _files: WordTokenizer())


@pytest.fixture
def session(tmp_path: Path) -> Iterator[ServerSession]:
    with closing(_Stopping(ENGINE.start(mock(), tmp_path / "engine.log"))) as stopping:
        yield stopping.session


class _Stopping:
    def __init__(self, session: ServerSession) -> None:
        self.session = session

    def close(self) -> None:
        self.session.stop()


def server_pids(server: Server) -> list[int]:
    """The guard and everything below it."""
    tree = [server.guard_pid]
    for pid in tree:
        tree += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return tree


def test_a_server_that_is_up_answers_on_the_loopback_interface(tmp_path: Path) -> None:
    server = start_server("mock", mock(), Path(sys.prefix), tmp_path / "engine.log", os.environ)
    pids = server_pids(server)
    assert len(pids) == 2
    assert os.getsid(pids[1]) == server.guard_pid != os.getsid(0)
    assert httpx2.get(f"{server.url}/models").status_code == 200
    server.stop()
    server.stop()
    assert not any(map(is_alive, pids))


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("dies", EngineStartError, r"(?s)ended while it was starting \(exit status 1\).*of no known kind"),
        ("memory", OutOfMemoryError, r"(?s)ended while.*CUDA out of memory"),
    ],
)
def test_a_server_that_dies_at_its_start_is_named_by_its_last_words(
    tmp_path: Path, kind: str, error: type[MeasurementError], says: str
) -> None:
    with pytest.raises(error, match=says):
        start_server("odd", odd(kind), Path(sys.prefix), tmp_path / "engine.log", os.environ)


@pytest.mark.parametrize("kind", ["unready", "hangs", "stubborn"])
def test_a_server_that_is_never_ready_is_gone_after_its_limit(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "GRACE_S", 0.3)
    monkeypatch.setattr(server_module, "ANSWER_S", 0.3)
    server = Server("odd", odd(kind, limit_s=1.0), Path(sys.prefix), tmp_path / "engine.log", os.environ)
    pids = wait_for(lambda: found if len(found := server_pids(server)) > 1 else None)
    with pytest.raises(EngineStartError, match=r"(?s)did not answer http://127\S+/health within 1 s.*loading weights"):
        server.wait_until_ready()
    worker = server.scratch / "worker.pid"
    assert not any(map(is_alive, [*pids, *([int(worker.read_text())] if worker.exists() else [])]))


def test_somebody_else_s_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        port = stranger.server_port
        assert httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200
        for kind, says in (("unready", "ended while it was starting"), ("slow", f"another program .* port {port}")):
            with pytest.raises(EngineStartError, match=says):
                start_server("odd", odd(kind, limit_s=5.0), tmp_path, tmp_path / "engine.log", os.environ, port)
        stranger.shutdown()


def test_a_server_that_serves_another_model_is_not_ours(tmp_path: Path) -> None:
    another = replace(mock(), files=replace(FILES, name="another"))
    with pytest.raises(EngineStartError, match="no model 'another'; it serves: mock"):
        ENGINE.start(another, tmp_path / "engine.log")


def test_a_command_that_does_not_exist_is_no_start(tmp_path: Path) -> None:
    spec = LaunchSpec(FILES, "bf16", argv=(f"{HOME}/no/such/engine",), ready_url="http://127.0.0.1:1/")
    with pytest.raises(EngineStartError, match=r"cannot be started: .*No such file"):
        start_server("none", spec, tmp_path, tmp_path / "engine.log", os.environ)


def test_an_in_process_engine_is_no_server(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="no server"):
        start_server("none", LaunchSpec(FILES, "bf16"), tmp_path, tmp_path / "engine.log", os.environ)


OWNER = """
import sys, time
from pathlib import Path
from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.server import PORT, SCRATCH, Server
from moe_cap.measure.model_files import ModelFiles
argv = (sys.executable, sys.argv[2], "stubborn", PORT, f"{SCRATCH}/worker.pid")
spec = LaunchSpec(ModelFiles("x", "0", Path("/"), {}, ()), "bf16", argv=argv, ready_url=f"http://127.0.0.1:{PORT}/")
server = Server("odd", spec, Path(sys.prefix), Path(sys.argv[1]), {})
time.sleep(120)
"""


def test_nothing_of_a_server_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(log), str(ODD)])
    try:
        worker = read_pid(log.with_suffix(".scratch") / "worker.pid")
        (guard,) = map(int, Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split())
        (server,) = [
            int(pid) for pid in Path(f"/proc/{guard}/task/{guard}/children").read_text().split() if int(pid) != worker
        ]
    finally:
        owner.kill()
        owner.wait()
    wait_for(lambda: not any(map(is_alive, (guard, server, worker))))


def test_a_server_gets_no_secret_and_nothing_that_decides_unseen() -> None:
    environ = {"PATH": "/bin", "HF_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "1", "PYTHONPATH": "/x", "VLLM_X": "1"}
    kept = clean_environment(environ, {"VLLM_Y": "2"})
    assert {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "VLLM_Y": "2"}.items() <= kept.items()
    assert not {"HF_TOKEN", "PYTHONPATH", "VLLM_X"} & kept.keys()


def test_a_launched_server_is_measured_by_the_streaming_client(session: ServerSession) -> None:
    run = session.run(requests(6), 2)
    assert [len(completion.tokens) for completion in run.completions] == [4] * 6
    record = session.describe()
    assert (record.name, record.version) == ("mock", "1.0")
    pids = server_pids(session.server)
    session.stop()
    assert not any(map(is_alive, pids))


def test_a_server_that_dies_in_a_run_has_crashed(session: ServerSession) -> None:
    os.kill(server_pids(session.server)[1], signal.SIGKILL)
    with pytest.raises(EngineCrashedError, match=r"mock died \(exit status -9\)"):
        session.run(requests(6), 2)


def test_a_server_that_cannot_be_spoken_to_is_stopped(tmp_path: Path) -> None:
    spec = spec_of("-m", "moe_cap.measure.mock_server", "--port", PORT, *MOCK, "--fault", "status_500")
    log = tmp_path / "engine.log"
    with pytest.raises(MeasurementError, match="500"):
        ENGINE.start(spec, log)
    assert json.loads(log.with_suffix(".ending.json").read_text())["asked_to_stop"] is True


def test_an_engine_that_is_nowhere_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere(MockEngine):
        def version_in(self, home: Path) -> str | None:
            return None

    monkeypatch.setenv("MOE_CAP_ENGINES", str(tmp_path))
    found = Nowhere().probe()
    assert (found.installed, found.version) == (False, None)
    assert found.reason is not None
    assert str(tmp_path / "mock") in found.reason
    with pytest.raises(EngineStartError, match="not installed"):
        Nowhere().start(mock(), tmp_path / "engine.log")


def test_the_version_is_read_from_an_environment_without_running_it() -> None:
    assert package_version(Path(sys.prefix), "no-such-package", "pytest") == pytest.__version__
    assert package_version(Path(sys.prefix), "no-such-package") is None


def test_timed_and_recording_server_take_turns_on_one_port(session: ServerSession) -> None:
    timed, url = session.server, session.server.url
    recording = replace(mock(), argv=(*mock().argv, "--seed", "7"))
    session.serve(recording)
    between = session.server
    assert timed.has_ended()
    assert between.url == url
    session.serve(recording)
    assert session.server is between
    assert len(session.run(requests(2), 1).completions) == 2
    assert between.has_ended()
    assert session.server.url == url


VLLM_ON_FP8_WITHOUT_AMX = """\
(APIServer pid=1) WARNING 11-22 22:45:20 [system_utils.py:255] fd limit errors like `OSError: [Errno 24] Too many
(Worker pid=3) ERROR 11-22 22:46:42 [multiproc_executor.py:953]     raise ValueError(
(Worker pid=3) ERROR 11-22 22:46:42 [multiproc_executor.py:953] ValueError: Failed to find a kernel. Reasons:
(Worker pid=3) ERROR 11-22 22:46:42 [multiproc_executor.py:953] CPUFp8BlockScaledMMKernel requires AMX tile support.
(EngineCore pid=2) INFO 11-22 22:46:42 [multiproc_executor.py:479] [shutdown] Executor: waiting for worker
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_first_error_is_told_because_the_last_one_is_another_process_s() -> None:
    cause = first_error(VLLM_ON_FP8_WITHOUT_AMX)
    assert cause is not None
    assert cause.startswith("ValueError: Failed to find a kernel. Reasons:\nCPUFp8BlockScaledMMKernel requires AMX")
    assert first_error("loading weights\nready\n") is None


def test_a_package_that_lies_in_a_folder_named_by_a_pth_file_is_found(tmp_path: Path) -> None:
    brought, packages = tmp_path / "brought", tmp_path / "home" / "lib" / "python3.11" / "site-packages"
    metadata = brought / "vllm-0.26.0.dist-info" / "METADATA"
    for folder in (metadata.parent, packages):
        folder.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.26.0\n")
    assert package_version(tmp_path / "home", "vllm") is None
    code = f"import sys; {'x' * 300}"
    (packages / "brought.pth").write_text(f"# where vLLM lies\n{code}\n{tmp_path}/gone\n{brought}\n")
    assert package_version(tmp_path / "home", "vllm") == "0.26.0"
