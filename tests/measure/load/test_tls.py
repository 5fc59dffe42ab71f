"""The same client over TLS, against a server behind a certificate of its own authority."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from load_plans import QUICK, plan_for

from moe_cap.errors import ServerError
from moe_cap.measure.load import ClosedLoop, Target, run_load
from moe_cap.measure.mock_server import MockServer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", chain]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    return key, chain


def shovel(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def secured(certificate: tuple[Path, Path]) -> Iterator[tuple[MockServer, int]]:
    """The mock server behind a TLS door: one thread in each direction of each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    opened: list[socket.socket] = []

    def door(listener: socket.socket, port: int) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            opened.append(client)
            try:
                outside = context.wrap_socket(client, server_side=True)
            except OSError:
                continue
            inside = socket.create_connection(("127.0.0.1", port))
            opened.extend([outside, inside])
            for pair in ((outside, inside), (inside, outside)):
                threading.Thread(target=shovel, args=pair, daemon=True).start()

    with MockServer(QUICK) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=door, args=(listener, server.port), daemon=True).start()
        yield server, listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for end in opened:
            end.close()


def test_answers_come_over_tls_whole(secured: tuple[MockServer, int], certificate: tuple[Path, Path]) -> None:
    server, port = secured
    target = Target(f"https://localhost:{port}/v1", "mock", ca_file=str(certificate[1]))
    run = run_load(plan_for(server, ClosedLoop(2), 8, target=target)).require_valid()
    assert {(request.output_tokens, len(request.chunk_s)) for request in run.requests} == {(4, 4)}
    assert sum(request.connected_s is not None for request in run.requests) == 2
    assert run.saturation[0].read_lag_s == ()


def test_an_unknown_authority_is_not_trusted(secured: tuple[MockServer, int]) -> None:
    server, port = secured
    with pytest.raises(ServerError, match="TLS"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target(f"https://localhost:{port}/v1", "mock")))


def test_plain_http_behind_https_is_told(secured: tuple[MockServer, int]) -> None:
    server, _ = secured
    with pytest.raises(ServerError, match="TLS"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target(server.url.replace("http:", "https:"), "mock")))
